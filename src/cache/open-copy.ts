import { constants } from 'node:fs';
import { lstat, open, type FileHandle } from 'node:fs/promises';
import { LoaderError, systemErrorCode } from '../errors.ts';
import { readSmallFile, UnfitFileError } from '../files/small-file.ts';
import { MAX_RECORD_LENGTH, parseRecord, type CopyRecord } from './copy-record.ts';
import type { CopyPaths } from './copy-paths.ts';

/** An open big part of the cache. Its disposal closes it. */
export interface OpenCopy extends AsyncDisposable {
  readonly handle: FileHandle;
  /** Tells this file from another of the same name, while the handle is open: later the number may be used again. */
  readonly inode: bigint;
  /** Bytes. */
  readonly length: number;
  /** Undefined for files that another program put there. */
  readonly record: CopyRecord | undefined;
}

/** What stands in the place of a copy and can't be one. Its disposal closes it. */
export interface UnfitCopy extends AsyncDisposable {
  readonly inode: bigint;
  readonly reason: unknown;
}

/** A file that is replaced while it is opened is opened again, at most so many times in all. */
const MAX_OPENINGS = 5;
/** Errors of opening what can't be read as a copy. Others, such as too many open files, say nothing about it. */
const NOT_A_COPY: readonly string[] = ['EACCES', 'EPERM', 'ELOOP', 'ENXIO'];

/**
 * Opens a copy with its own record; undefined when there is none. A folder in its place is none: it may be the folder of
 * other resources, since folders can have any name.
 *
 * @throws the system's error
 */
export async function openCopy(paths: CopyPaths): Promise<OpenCopy | UnfitCopy | undefined> {
  try {
    for (let opening = 1; opening <= MAX_OPENINGS; opening++) {
      const stats = await lstat(paths.big, { bigint: true });
      if (stats.isDirectory()) return undefined;
      const copy = await openPresent(paths, stats.ino);
      // The record may be another file's if a version was published meanwhile; then this file has lost its name.
      if (await isAt(paths.big, copy.inode)) return copy;
      await copy[Symbol.asyncDispose]();
    }
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
  }
  return undefined;
}

export function isUnfit(copy: OpenCopy | UnfitCopy): copy is UnfitCopy {
  return 'reason' in copy;
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
        'The copy in the cache does not have the length that its record tells.',
      );
    }
    return { handle, inode, length, record, ...closing(handle) };
  } catch (error) {
    if (error instanceof LoaderError || NOT_A_COPY.includes(systemErrorCode(error) ?? '')) {
      return { inode, reason: error, ...closing(handle) };
    }
    await handle?.close();
    throw error;
  }
}

/**
 * The record in a file; undefined when there is none, as beside the copies of an older Loader, which are judged by their
 * envelope alone. A damaged record is an error, since only a record tells an outdated copy.
 *
 * @throws LoaderError `cache_unusable` when it is damaged; the system's error
 */
export async function readRecord(filePath: string): Promise<CopyRecord | undefined> {
  const text = await readSmallFile(filePath, MAX_RECORD_LENGTH).catch(foreignFile);
  if (text === undefined) return undefined;
  const record = parseRecord(text);
  if (record === undefined) throw new LoaderError('cache_unusable', 'The record of a copy in the cache is damaged.');
  return record;
}

function foreignFile(error: unknown): never {
  if (!(error instanceof UnfitFileError)) throw error;
  throw new LoaderError('cache_unusable', 'A file beside a copy in the cache was not made by the Loader.', {
    cause: error,
  });
}

/** Nothing was written through the handle, so a failure to close it loses nothing. */
function closing(handle: FileHandle | undefined): AsyncDisposable {
  return {
    [Symbol.asyncDispose]: async () => {
      await handle?.close().catch(() => undefined);
    },
  };
}

/** Whether the file with this inode has this name now. */
export async function isAt(filePath: string, inode: bigint): Promise<boolean> {
  try {
    return (await lstat(filePath, { bigint: true })).ino === inode;
  } catch {
    return false;
  }
}
