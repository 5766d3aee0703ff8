import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { systemErrorCode } from '../errors.ts';

/** What stands under the name is not a regular file, or is longer than any that is expected there. */
export class UnfitFileError extends Error {
  override readonly name = 'UnfitFileError';
}

/**
 * The text of a small file; undefined when there is none. A symbolic link is not followed. It is ours since `readFile` takes
 * a file of any length, and waits at a FIFO.
 *
 * @throws UnfitFileError when it has more than `maxLength` bytes or is not a regular file; the system's error
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
  throw new UnfitFileError(`not a regular file of at most ${maxLength} bytes`);
}
