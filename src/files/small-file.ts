import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { LoaderError, systemErrorCode } from '../errors.ts';

/**
 * The text of a file; undefined when there is none.
 *
 * @throws LoaderError `cache_unusable` when it is longer than `maxLength` bytes or no file; the system's error
 */
export async function readSmallFile(filePath: string, maxLength: number): Promise<string | undefined> {
  try {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    await using file = await open(filePath, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stats = await file.stat();
    if (stats.isFile() && stats.size <= maxLength) return await file.readFile('utf8');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  throw new LoaderError('cache_unusable', 'A file beside a copy in the cache is none of the Loader.');
}
