import { execFile } from 'node:child_process';
import { UntoldError } from './untold-error.ts';

const TIMEOUT_MS = 10_000;
const MAX_OUTPUT_LENGTH = 1024 * 1024;
/** The exit code of a shell that did not find the program. */
const NOT_FOUND = 127;

/** The Debian packages of the programs, which other distributions mostly call the same. */
const PACKAGES = { lscpu: 'util-linux', lspci: 'pciutils' } as const;
export type Tool = keyof typeof PACKAGES;

/**
 * Runs a program that tells about the hardware, and returns what it prints. It has ten seconds and 1 MiB for that.
 *
 * @throws UntoldError when it is not there, fails, hangs or prints more
 */
export async function runTool(tool: Tool, options = ''): Promise<string> {
  // The shell sets the language, since names of fields are translated. The rest of the environment holds no secret:
  // src/config has removed them.
  const command = `export LC_ALL=C; exec ${tool} ${options}`;
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  execFile(
    '/bin/sh',
    ['-c', command],
    // The signal, unlike `timeout`, does not wait for the end of a program that can't be killed.
    { signal, killSignal: 'SIGKILL', maxBuffer: MAX_OUTPUT_LENGTH, encoding: 'utf8' },
    (error, stdout) => {
      if (error === null) resolve(stdout);
      else reject(new UntoldError(reasonOf(tool, error, signal), { cause: error }));
    },
  );
  return await promise;
}

function reasonOf(tool: Tool, error: Error & { readonly code?: unknown }, signal: AbortSignal): string {
  if (error.code === NOT_FOUND || error.code === 'ENOENT') {
    return `${tool} is not installed: install the package ${PACKAGES[tool]}`;
  }
  const how = signal.aborted ? `did not end within ${TIMEOUT_MS / 1000} s` : 'failed';
  return `${tool} ${how}: run it in a shell, and install the package ${PACKAGES[tool]} if it is that of another one`;
}
