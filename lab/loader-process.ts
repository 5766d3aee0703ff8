import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ProcessOutput } from './process-output.ts';
import { shippedFolder, shippedMain } from './shipped-folder.ts';
import { shippedNodeOptions } from './shipped-options.ts';

const START_TIMEOUT_MS = 20_000;
const STOP_TIMEOUT_MS = 30_000;
const POLL_MS = 5;
const KEPT_LOG_LINES = 12;
/** Becomes the command behind it. Other systems than Linux know no such thing. */
const DIES_WITH_PARENT = process.platform === 'linux' ? ['setpriv', '--pdeathsig', 'KILL'] : [];

export interface LoaderProcessOptions {
  /** The file that Node runs. If it is absent, this is the main file of what this project ships. */
  readonly main?: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** A file for all that it logs. */
  readonly logPath: string;
  /** User ID to run as, for tests about permissions. */
  readonly uid?: number;
  /** Ends the wait for the start. */
  readonly signal?: AbortSignal;
}

/**
 * The Loader as its users run it: a process of its own, made of what ships and with its options of Node, on a free port,
 * over real sockets. Tests, demo and bench start it here and nowhere else.
 *
 * It is in a process group of its own, so that Ctrl-C in the terminal reaches only its parent, which stops it in its own
 * time. When the parent is killed, Linux kills the Loader too.
 */
export class LoaderProcess {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #output: ProcessOutput;

  private constructor(child: ChildProcess, url: string, output: ProcessOutput) {
    this.#child = child;
    this.pid = child.pid ?? 0;
    this.url = url;
    this.port = Number(new URL(url).port);
    this.#output = output;
  }

  /** @throws Error with its log when it ends or does not listen within 20 s; the reason of `signal` */
  static async start(options: LoaderProcessOptions): Promise<LoaderProcess> {
    const { child, output } = await spawnLoader(options);
    try {
      return new LoaderProcess(child, await waitForUrl(child, output, options.signal), output);
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  /** Starts a Loader that is killed after so many ms, whether it listens by then or not. */
  static async startAndKill(options: LoaderProcessOptions, afterMs: number): Promise<void> {
    const { child } = await spawnLoader(options);
    const exited = once(child, 'exit');
    await sleep(afterMs);
    child.kill('SIGKILL');
    await exited;
  }

  get isRunning(): boolean {
    return isRunning(this.#child);
  }

  /** Its log until now. */
  log(): string {
    return this.#output.text();
  }

  /** The end of its log. */
  get lastLogLines(): readonly string[] {
    return this.log().trimEnd().split('\n').slice(-KEPT_LOG_LINES);
  }

  /** From now on nothing reads what it logs. */
  stopReadingLog(): void {
    this.#output.stopReading();
  }

  /** Sends a signal whose effect is awaited elsewhere. */
  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Its exit code when it ends; null when a signal ended it. */
  async exited(): Promise<number | null> {
    if (this.isRunning) await once(this.#child, 'exit');
    return this.#child.exitCode;
  }

  /**
   * Sends a signal and waits for the end; kills the Loader when it takes longer than `timeoutMs`. Returns the exit code,
   * or null when a signal ended it.
   */
  async stop(signal: NodeJS.Signals = 'SIGTERM', timeoutMs = STOP_TIMEOUT_MS): Promise<number | null> {
    const exited = this.exited();
    this.#child.kill(signal);
    const timer = setTimeout(() => this.kill(), timeoutMs);
    try {
      return await exited;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends it at once. */
  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

async function spawnLoader({ main, env, logPath, uid, signal }: LoaderProcessOptions) {
  const script = main ?? shippedMain(await shippedFolder(signal === undefined ? {} : { signal }));
  mkdirSync(path.dirname(logPath), { recursive: true });
  const output = new ProcessOutput(logPath);
  try {
    const [command, ...args] = [...DIES_WITH_PARENT, process.execPath, ...shippedNodeOptions(script), script];
    const child = spawn(command, args, {
      detached: true,
      env: { PATH: process.env['PATH'], PORT: '0', ...env },
      stdio: ['ignore', output.writeEnd, output.writeEnd],
      ...(uid === undefined ? {} : { uid, gid: uid }),
    });
    await once(child, 'spawn');
    child.on('exit', () => output.read());
    return { child, output };
  } finally {
    closeSync(output.writeEnd);
  }
}

async function waitForUrl(child: ChildProcess, output: ProcessOutput, signal?: AbortSignal): Promise<string> {
  for (const deadline = performance.now() + START_TIMEOUT_MS; performance.now() < deadline;) {
    const hasEnded = !isRunning(child);
    const log = output.text();
    const url = /Server listening at (http:\/\/[^"\s]+)/.exec(log)?.[1];
    if (url !== undefined) return url;
    if (hasEnded) throw new Error(`the Loader ended with ${child.exitCode ?? child.signalCode}: ${log}`);
    await sleep(POLL_MS, undefined, signal === undefined ? {} : { signal });
  }
  throw new Error(`the Loader did not listen within ${START_TIMEOUT_MS} ms: ${output.text()}`);
}

function isRunning(child: ChildProcess): boolean {
  return child.exitCode === null && child.signalCode === null;
}
