import { addAbortSignal, type Readable } from 'node:stream';
import { CliError } from './cli-error.ts';
import { fileError } from './file-error.ts';
import { InputFile } from './input-file.ts';

/** The bytes of a file, or of stdin for `-`. `name` begins the messages. @throws CliError, or the reason of `signal` */
export async function inputChunks(name: string, path: string, signal: AbortSignal): Promise<AsyncIterable<Buffer>> {
  return path === '-' ? readStdin(process.stdin, signal) : (await InputFile.at(name, path)).chunks(signal);
}

/** All of them, where they are few. @throws as `inputChunks`, and CliError beyond `maxLength` bytes */
export async function readInput(name: string, path: string, maxLength: number, signal: AbortSignal): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of await inputChunks(name, path, signal)) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > maxLength)
      throw new CliError(`${name} ${path} has more than ${maxLength} bytes: name the right file.`);
  }
  return Buffer.concat(chunks);
}

/** @throws CliError, or the reason of `signal` */
export async function* readStdin(stdin: Readable, signal: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
  signal.throwIfAborted();
  try {
    yield* addAbortSignal(signal, stdin) as AsyncIterable<Buffer>;
  } catch (error) {
    signal.throwIfAborted();
    throw fileError("Stdin can't be read", error);
  }
}
