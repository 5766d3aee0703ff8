import { constants } from 'node:fs';
import { lstat, open, type FileHandle } from 'node:fs/promises';
import { LoaderError, systemErrorCode } from '../errors.ts';
import { readRecord, type CopyRecord } from './copy-record.ts';
import type { CopyPaths } from './copy-paths.ts';

/** An open big part of the cache. The caller closes the handle. */
export interface OpenCopy {
  readonly handle: FileHandle;
  /** Tells this file from another of the same name, while the handle is open: afterwards the number may be used again. */
  readonly inode: bigint;
  /** Bytes. */
  readonly length: number;
  /** Unknown for files that another program put there. */
  readonly record: CopyRecord | undefined;
}

/** What stands in the place of a copy and can't be one. The caller closes the handle. */
export interface UnfitCopy {
  /** Undefined where it could not be opened. */
  readonly handle: FileHandle | undefined;
  readonly inode: bigint;
  readonly reason: unknown;
}

/** How often a file that was replaced while it was opened is opened anew. */
const MAX_OPENINGS = 5;
/** Errors of opening what can't be read as a copy. Others, such as too many open files, say nothing about it. */
const NOT_A_COPY: readonly string[] = ['EACCES', 'EPERM', 'ELOOP', 'EISDIR', 'ENXIO'];

/** Opens a copy with its own record; undefined when there is none. @throws the system's error */
export async function openCopy(paths: CopyPaths): Promise<OpenCopy | UnfitCopy | undefined> {
  try {
    for (let opening = 1; opening <= MAX_OPENINGS; opening++) {
      const { ino } = await lstat(paths.big, { bigint: true });
      const opened = await openPresent(paths, ino);
      // The record is another file's, when another version was published since: its file is taken away before that.
      if (await isAt(paths.big, opened.inode)) return opened;
      await opened.handle?.close();
    }
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
  }
  return undefined;
}

async function openPresent(paths: CopyPaths, presentInode: bigint): Promise<OpenCopy | UnfitCopy> {
  let handle: FileHandle | undefined;
  let inode = presentInode;
  try {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    handle = await open(paths.big, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stats = await handle.stat({ bigint: true });
    inode = stats.ino;
    if (!stats.isFile()) throw new LoaderError('cache_unusable', 'The copy in the cache is not a file.');
    const length = Number(stats.size);
    const record = await readRecord(paths.record);
    if (record !== undefined && record.bigLength !== length) {
      throw new LoaderError(
        'envelope_invalid',
        'The copy in the cache does not have the length that it was written with.',
      );
    }
    return { handle, inode, length, record };
  } catch (error) {
    if (error instanceof LoaderError || NOT_A_COPY.includes(systemErrorCode(error) ?? '')) {
      return { handle, inode, reason: error };
    }
    await handle?.close();
    throw error;
  }
}

/** Whether the file with this inode has this name now. */
export async function isAt(filePath: string, inode: bigint): Promise<boolean> {
  try {
    return (await lstat(filePath, { bigint: true })).ino === inode;
  } catch {
    return false;
  }
}
