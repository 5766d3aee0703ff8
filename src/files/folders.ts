import { mkdir, open } from 'node:fs/promises';
import path from 'node:path';
import { systemErrorCode } from '../errors.ts';

/** Only the Loader's own user may look into a folder that the Loader makes. Folders that are there keep their mode. */
const FOLDER_MODE = 0o700;

/**
 * Makes a folder, and those above it, unless they are there. It is ours since Node's own recursive mkdir never returns
 * where a file system has a folder in which nothing can be made, such as /proc.
 */
export async function makeFolder(folder: string): Promise<void> {
  try {
    await makeOneFolder(folder);
  } catch (error) {
    const parent = path.dirname(folder);
    if (systemErrorCode(error) !== 'ENOENT' || parent === folder) throw error;
    await makeFolder(parent);
    await makeOneFolder(folder);
  }
}

/** Makes one folder, unless it is there. */
export async function makeOneFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { mode: FOLDER_MODE });
  } catch (error) {
    if (systemErrorCode(error) !== 'EEXIST') throw error;
  }
}

/** Puts the names in a folder on the disk: a renamed file may else have its old name after a power cut. */
export async function syncFolder(folder: string): Promise<void> {
  await using handle = await open(folder, 'r');
  await handle.sync();
}
