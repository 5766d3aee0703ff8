import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

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
const run = promisify(execFile);

/**
 * Runs a command line of the shell within bounds, and returns what it prints. It is ours since the `timeout` of execFile
 * waits for the end of a program that can't be killed.
 *
 * @throws ProgramError
 */
export async function runProgram(commandLine: string, { timeoutMs, maxLength }: ProgramBounds): Promise<string> {
  const signal = AbortSignal.timeout(timeoutMs);
  try {
    const bounds = { signal, killSignal: 'SIGKILL', maxBuffer: maxLength } as const;
    return (await run('/bin/sh', ['-c', commandLine], bounds)).stdout;
  } catch (error) {
    throw new ProgramError(kindOf(error, signal), { cause: error });
  }
}

function kindOf(error: unknown, signal: AbortSignal): ProgramError['kind'] {
  const { code } = error as { readonly code?: unknown };
  if (code === NOT_FOUND || code === 'ENOENT') return 'absent';
  return signal.aborted ? 'late' : 'failed';
}
