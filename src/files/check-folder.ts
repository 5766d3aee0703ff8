import { constants } from 'node:fs';
import { access, stat, statfs } from 'node:fs/promises';
import { makeFolder } from './folders.ts';

/** What an operator may have to change about a folder that can be used. */
export interface FolderFacts {
  /** The user ID of the folder's owner, where that is neither this process's user nor root. */
  readonly foreignOwner: number | undefined;
  /** The permission bits. */
  readonly mode: number;
  /** Whether users other than the owner may make and remove files in it. */
  readonly isOpenToOthers: boolean;
  /** The bytes that this user can still write there; 0 where no further file can be made. */
  readonly freeBytes: number;
}

const OPEN_TO_OTHERS = 0o022;

/**
 * Makes a folder unless it is there, and looks at what it is.
 *
 * @throws the system's error when this process can't read and write there: ENOTDIR for what is no folder
 */
export async function checkFolder(folder: string): Promise<FolderFacts> {
  await makeFolder(folder);
  const stats = await stat(folder);
  // Behind the slash, anything but a folder is ENOTDIR.
  await access(`${folder}/`, constants.R_OK | constants.W_OK | constants.X_OK);
  const user = process.geteuid?.();
  const disk = await statfs(folder);
  // Some file systems make files without end, and count none.
  const isOutOfFiles = disk.files > 0 && disk.ffree === 0;
  return {
    foreignOwner: user === undefined || stats.uid === user || stats.uid === 0 ? undefined : stats.uid,
    mode: stats.mode & 0o7777,
    isOpenToOthers: (stats.mode & OPEN_TO_OTHERS) !== 0,
    freeBytes: isOutOfFiles ? 0 : disk.bavail * disk.bsize,
  };
}
