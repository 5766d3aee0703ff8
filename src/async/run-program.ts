import { execFile } from 'node:child_process';

export interface ProgramBounds {
  /** From the start to the end, in ms. */
  readonly timeoutMs: number;
  /** Bytes that it may print. */
  readonly maxLength: number;
}

/** A program that was not there, failed, hung or printed too much. */
export class ProgramError extends Error {
  override readonly name = 'ProgramError';
  readonly kind: 'absent' | 'failed' | 'late';

  constructor(kind: ProgramError['kind'], options: { cause: unknown }) {
    super(`the program ${{ absent: 'is not there', failed: 'failed', late: 'did not end in time' }[kind]}`, options);
    this.kind = kind;
  }
}

/** The exit code of a shell that did not find the program. */
const NOT_FOUND = 127;

/**
 * Runs a command line of the shell within bounds, and returns what it prints. It is ours since the `timeout` of execFile
 * waits for the end of a program that can't be killed.
 *
 * @throws ProgramError
 */
export async function runProgram(commandLine: string, { timeoutMs, maxLength }: ProgramBounds): Promise<string> {
  const signal = AbortSignal.timeout(timeoutMs);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  execFile(
    '/bin/sh',
    ['-c', commandLine],
    { signal, killSignal: 'SIGKILL', maxBuffer: maxLength, encoding: 'utf8' },
    (error, stdout) => {
      if (error === null) resolve(stdout);
      else reject(new ProgramError(kindOf(error, signal), { cause: error }));
    },
  );
  return await promise;
}

function kindOf(error: Error & { readonly code?: unknown }, signal: AbortSignal): ProgramError['kind'] {
  if (error.code === NOT_FOUND || error.code === 'ENOENT') return 'absent';
  return signal.aborted ? 'late' : 'failed';
}
