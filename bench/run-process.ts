import { spawn } from 'node:child_process';
import { performance } from 'node:perf_hooks';

export interface ProcessResult {
  readonly stdout: string;
  /** From before the process was made until it had ended. */
  readonly wallMs: number;
}

export interface ProcessOptions {
  readonly signal: AbortSignal;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs a program to its end. @throws Error with what it said when it fails, or the reason of `signal` */
export async function runProcess(
  command: string,
  args: readonly string[],
  { signal, env = {} }: ProcessOptions,
): Promise<ProcessResult> {
  signal.throwIfAborted();
  const startedAt = performance.now();
  // A group of its own, so that an abort ends all of a pipeline.
  const child = spawn(command, args, {
    detached: true,
    env: { PATH: process.env['PATH'], LC_ALL: 'C.UTF-8', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const killGroup = () => {
    if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGKILL');
  };
  signal.addEventListener('abort', killGroup, { once: true });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
  child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
  try {
    const outcome = await new Promise<string>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signalName) => resolve(String(code ?? signalName)));
    });
    const wallMs = performance.now() - startedAt;
    signal.throwIfAborted();
    if (outcome !== '0') throw new Error(`${command} ended with ${outcome}: ${stderr.trim()}`);
    return { stdout, wallMs };
  } finally {
    signal.removeEventListener('abort', killGroup);
  }
}

/** Runs a pipeline in Bash, with `args` as $1, $2 and so on. It fails when any of its programs does. */
export async function runPipeline(
  script: string,
  args: readonly string[],
  options: ProcessOptions,
): Promise<ProcessResult> {
  return await runProcess('bash', ['-o', 'pipefail', '-c', script, 'bench', ...args], options);
}
