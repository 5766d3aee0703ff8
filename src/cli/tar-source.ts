import type { Readable } from 'node:stream';
import { CliError } from './cli-error.ts';
import { readStdin } from './input-chunks.ts';
import { InputFile } from './input-file.ts';

/** A tar that `docker save` wrote, in a file or on stdin. */
export class TarSource {
  /** Bytes; undefined where it is not known. */
  readonly length: number | undefined;
  readonly #name: string;
  readonly #read: (signal: AbortSignal) => AsyncIterable<Buffer>;

  private constructor(name: string, length: number | undefined, read: (signal: AbortSignal) => AsyncIterable<Buffer>) {
    this.#name = name;
    this.length = length;
    this.#read = read;
  }

  /** `path` `-` is stdin. @throws CliError when there is nothing to read */
  static async at(path: string, stdin: Readable & { readonly isTTY?: boolean }): Promise<TarSource> {
    if (path === '-') {
      if (stdin.isTTY === true) throw new CliError('Stdin is a terminal: pipe docker save into this command.');
      return new TarSource('What came on stdin', undefined, (signal) => readStdin(stdin, signal));
    }
    const file = await InputFile.at('The tar', path);
    return new TarSource(`The tar ${path}`, file.length, (signal) => file.chunks(signal));
  }

  /** @throws CliError, or the reason of `signal` */
  async *chunks(signal: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
    let isEmpty = true;
    for await (const chunk of this.#read(signal)) {
      isEmpty = false;
      yield chunk;
    }
    if (isEmpty) throw new CliError(`${this.#name} is empty: see whether docker save failed.`);
  }
}
