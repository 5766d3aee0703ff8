import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs';

const POLL_MS = 20;
const CHUNK_BYTES = 65_536;

/**
 * The outputs of a process, kept in a file. They come through a pipe, into which the Loader writes without a detour over
 * Node's threads: what it logged before an answer is in `text` when the answer is here.
 */
export class ProcessOutput {
  /** For the process. Close it when the process has it. */
  readonly writeEnd: number;
  readonly #readEnd: number;
  readonly #filePath: string;
  /** It outlives the name of the file: a test may remove its folder first. */
  readonly #file: number;
  readonly #timer: NodeJS.Timeout;
  #isRead = true;

  constructor(filePath: string) {
    this.#filePath = filePath;
    this.#file = openSync(filePath, 'w');
    const pipePath = `${filePath}.pipe`;
    execFileSync('mkfifo', ['-m', '600', pipePath]);
    this.#readEnd = openSync(pipePath, constants.O_RDONLY | constants.O_NONBLOCK);
    this.writeEnd = openSync(pipePath, 'w');
    rmSync(pipePath);
    this.#timer = setInterval(() => this.read(), POLL_MS).unref();
  }

  /** Everything until now. */
  text(): string {
    this.read();
    return readFileSync(this.#filePath, 'utf8');
  }

  /** From now on nothing reads the pipe, which stays open. */
  stopReading(): void {
    clearInterval(this.#timer);
    this.#isRead = false;
  }

  /** Moves into the file what the pipe holds. */
  read(): void {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    while (this.#isRead) {
      const length = readNow(this.#readEnd, chunk);
      if (length === undefined) return;
      if (length > 0) writeSync(this.#file, chunk, 0, length);
      else this.#close();
    }
  }

  #close(): void {
    this.stopReading();
    closeSync(this.#readEnd);
    closeSync(this.#file);
  }
}

/** The number of bytes read; undefined when there is nothing at present, 0 when all writers are gone. */
function readNow(descriptor: number, chunk: Buffer): number | undefined {
  try {
    return readSync(descriptor, chunk);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EAGAIN') return undefined;
    throw error;
  }
}
