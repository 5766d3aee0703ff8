import { mkdir, open } from 'node:fs/promises';
import path from 'node:path';
import { systemErrorCode } from '../errors.ts';

/**
 * Makes a folder, and those above it, unless they are there. Node's own recursive mkdir never ends where a file system
 * has a folder in which nothing can be made, such as /proc.
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
    await mkdir(folder);
  } catch (error) {
    if (systemErrorCode(error) !== 'EEXIST') throw error;
  }
}

/** Puts the names in a folder on the disk. */
export async function syncFolder(folder: string): Promise<void> {
  await using handle = await open(folder, 'r');
  await handle.sync();
}
