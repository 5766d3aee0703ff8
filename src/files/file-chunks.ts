import type { FileHandle } from 'node:fs/promises';
import { releaseChunk } from './release-chunk.ts';
import type { PooledBuffer } from './slab-pool.ts';

/** A file ended before the position up to which it was to be read. Each room translates it into an error of its own. */
export class EndOfFileError extends Error {
  override readonly name = 'EndOfFileError';

  constructor() {
    super('the file ended early: it was cut while it was read');
  }
}

/**
 * A good length for reading a file that is decrypted and sent on. With 256 KiB, a load changes twice as often between the
 * event loop and the threads that read; larger chunks are not faster, and take more memory.
 */
export const FILE_CHUNK_LENGTH = 512 * 1024;

/** A file that is still being written. */
export interface Growth {
  /** Waits until the bytes before `position` are in the file. */
  reach(position: number): Promise<void>;
}

export interface FileChunksOptions {
  readonly growth?: Growth;
  /** Has the two buffers. Without it, they are made anew. */
  readonly buffers?: { take(length: number): PooledBuffer };
}

/**
 * Yields the bytes from `start` to `end` (exclusive) of an open file in chunks of `chunkLength`.
 *
 * The next chunk is read while the consumer works on the present one. Two buffers take turns: a chunk is valid until
 * the next one is asked for, and the memory of both is given back at the end. Where the file is still being written,
 * `growth` says so. It is ours since a read stream of Node allocates each chunk anew, and ends early without an error.
 *
 * @throws EndOfFileError when the file ends before `end`; the system's error, or that of `growth`
 */
export async function* readFileChunks(
  file: FileHandle,
  start: number,
  end: number,
  chunkLength: number,
  { growth, buffers }: FileChunksOptions = {},
): AsyncGenerator<Buffer, void, undefined> {
  const bufferLength = Math.max(0, Math.min(chunkLength, end - start));
  using owned = new DisposableStack();
  const makeBuffer = (length: number) =>
    buffers === undefined
      ? owned.adopt(Buffer.allocUnsafeSlow(length), releaseChunk)
      : owned.use(buffers.take(chunkLength)).bytes;
  let present = makeBuffer(bufferLength);
  let next = makeBuffer(end - start > chunkLength ? bufferLength : 0);
  const read = async (buffer: Buffer, from: number) => {
    const to = Math.min(end, from + chunkLength);
    await growth?.reach(to);
    return await readFully(file, buffer, from, to);
  };
  let reading = read(present, start);
  try {
    for (let position = start; position < end; position += chunkLength) {
      const chunk = await reading;
      const nextStart = position + chunkLength;
      if (nextStart < end) {
        reading = read(next, nextStart);
        // A consumer that leaves before it asks for that chunk never gets this failure.
        reading.catch(ignore);
      }
      yield chunk;
      [present, next] = [next, present];
    }
  } finally {
    // The caller may close the file after this generator has ended; no read may then be under way.
    await reading.catch(ignore);
  }
}

/** Fills `buffer` with the bytes from `start` to `end` (exclusive), and returns that part of it. @throws as `readFileChunks` */
export async function readFully<Memory extends ArrayBufferLike>(
  file: FileHandle,
  buffer: Buffer<Memory>,
  start: number,
  end: number,
): Promise<Buffer<Memory>> {
  const length = end - start;
  for (let filled = 0; filled < length;) {
    const { bytesRead } = await file.read(buffer, filled, length - filled, start + filled);
    if (bytesRead === 0) throw new EndOfFileError();
    filled += bytesRead;
  }
  return buffer.subarray(0, length);
}

/** Writes all of `bytes` from byte `position` on. They must not change meanwhile. @throws the system's error */
export async function writeFully(file: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let written = 0; written < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, written, bytes.length - written, position + written);
    written += bytesWritten;
  }
}

function ignore(): void {
  // The failure is thrown where the promise is awaited for its value.
}
