import { constants, createReadStream, openSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { Socket } from 'node:net';
import { addAbortSignal, type Readable } from 'node:stream';
import { fileError } from './file-error.ts';

const CHUNK_LENGTH = 1024 * 1024;

/** A file or a named pipe, which is read once from its beginning to its end. */
export class InputFile {
  /** Bytes; undefined for a pipe. */
  readonly length: number | undefined;
  readonly #name: string;
  readonly #path: string;

  private constructor(name: string, path: string, length: number | undefined) {
    this.#name = name;
    this.#path = path;
    this.length = length;
  }

  /** `name` begins the messages. @throws CliError when the file does not exist or is a folder */
  static async at(name: string, path: string): Promise<InputFile> {
    try {
      const found = await stat(path);
      if (found.isDirectory()) throw Object.assign(new Error('a folder'), { code: 'EISDIR' });
      return new InputFile(name, path, found.isFIFO() ? undefined : found.size);
    } catch (error) {
      throw fileError(`${name} ${path} can't be read`, error);
    }
  }

  /** @throws CliError, or the reason of `signal` */
  async *chunks(signal: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
    signal.throwIfAborted();
    try {
      yield* addAbortSignal(signal, this.#open()) as AsyncIterable<Buffer>;
    } catch (error) {
      signal.throwIfAborted();
      throw fileError(`${this.#name} ${this.#path} can't be read`, error);
    }
  }

  #open(): Readable {
    if (this.length !== undefined) return createReadStream(this.#path, { highWaterMark: CHUNK_LENGTH });
    // Reading an empty pipe as a file could not be cancelled, not even when the process ends.
    const fd = openSync(this.#path, constants.O_RDONLY | constants.O_NONBLOCK);
    return new Socket({ fd, readable: true, writable: false });
  }
}
