import { constants } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import path from 'node:path';
import { systemErrorCode } from '../errors.ts';
import { DraftFile } from './draft-file.ts';
import { makeFolder } from './folders.ts';

/** What stands under the name is not a regular file, or is longer than any that is expected there. */
export class UnfitFileError extends Error {
  override readonly name = 'UnfitFileError';
}

/** The text of a small file; undefined when there is none. @throws as `readSmallBytes` does */
export async function readSmallFile(filePath: string, maxLength: number): Promise<string | undefined> {
  return (await readSmallBytes(filePath, maxLength))?.toString('utf8');
}

/**
 * The bytes of a small file; undefined when there is none. A symbolic link is not followed. It is ours since `readFile` takes
 * a file of any length, and waits at a FIFO.
 *
 * @throws UnfitFileError when it has more than `maxLength` bytes or is not a regular file; the system's error
 */
export async function readSmallBytes(filePath: string, maxLength: number): Promise<Buffer | undefined> {
  try {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    await using file = await open(filePath, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stats = await file.stat();
    if (stats.isFile() && stats.size <= maxLength) return await file.readFile();
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  throw new UnfitFileError(`not a regular file of at most ${maxLength} bytes`);
}

/**
 * Writes a small file whole or not at all, and makes its folder. One that is `durable` is there after a power cut too.
 *
 * @throws the system's error
 */
export async function writeSmallFile(
  filePath: string,
  text: string,
  mode: 'durable' | 'fast' = 'durable',
): Promise<void> {
  const folder = path.dirname(filePath);
  await makeFolder(folder);
  // It always has the same name, so that the next write finds and removes what a killed process left.
  const draftPath = path.join(folder, `.${path.basename(filePath)}.part`);
  await rm(draftPath, { force: true });
  await using draft = await DraftFile.create(draftPath);
  await draft.write(Buffer.from(text), 0);
  if (mode === 'durable') await draft.publish(filePath);
  else await draft.place(filePath);
}
