import type { FileHandle } from 'node:fs/promises';
import { LoaderError } from '../errors.ts';
import { EndOfFileError, FILE_CHUNK_LENGTH, readFileChunks, type Growth } from '../files/file-chunks.ts';

/**
 * Yields the first `length` bytes of a file of the cache, as `readFileChunks` does.
 *
 * @throws LoaderError `cache_unusable` when the file ends early; the system's error, or that of `growth`
 */
export async function* readCacheFileChunks(
  file: FileHandle,
  length: number,
  growth?: Growth,
): AsyncGenerator<Buffer, void, undefined> {
  try {
    yield* readFileChunks(file, 0, length, FILE_CHUNK_LENGTH, growth);
  } catch (error) {
    throw error instanceof EndOfFileError ? cutFile(error) : error;
  }
}

/** A file of the cache that ends before its known length, as an error for clients. */
export function cutFile(cause: EndOfFileError): LoaderError {
  return new LoaderError('cache_unusable', 'A file of the cache was cut while the Loader read it: try again.', {
    cause,
  });
}
