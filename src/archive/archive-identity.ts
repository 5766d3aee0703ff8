import { constants } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { hasErrorCode, LoaderError, systemErrorCode } from '../errors.ts';
import { BLOCK_LENGTH } from '../security/envelope.ts';

/** Tells one archive from another that lies, or lay, under the same path. */
export interface ArchiveIdentity {
  /** Bytes of the envelope. */
  readonly length: number;
  /** ns since 1970, as text: a number is too small for it. */
  readonly modifiedNs: string;
  /** Hex. It is random, so another archive has another one. */
  readonly iv: string;
}

/** The identity of the archive that lies under `path` now. @throws LoaderError `archive_not_found`, `archive_unreadable` */
export async function readArchiveIdentity(path: string): Promise<ArchiveIdentity> {
  const file = await openArchiveFile(path);
  try {
    return await identifyArchive(file);
  } catch (error) {
    throw unreadableArchive(path, error);
  } finally {
    await file.close();
  }
}

/** The identity of an archive that is open. @throws the system's error */
export async function identifyArchive(file: FileHandle): Promise<ArchiveIdentity> {
  const { size, mtimeNs } = await file.stat({ bigint: true });
  const iv = Buffer.alloc(BLOCK_LENGTH);
  const { bytesRead } = await file.read(iv, 0, BLOCK_LENGTH, 0);
  return { length: Number(size), modifiedNs: String(mtimeNs), iv: iv.toString('hex', 0, bytesRead) };
}

export function isSameArchive(a: ArchiveIdentity, b: ArchiveIdentity): boolean {
  return a.length === b.length && a.modifiedNs === b.modifiedNs && a.iv === b.iv;
}

/** @throws LoaderError `archive_changed` when another archive lies under `path` than the one that was opened there */
export async function assertUnchanged(path: string, opened: ArchiveIdentity): Promise<void> {
  let present: ArchiveIdentity | undefined;
  try {
    present = await readArchiveIdentity(path);
  } catch (error) {
    if (!hasErrorCode(error, 'archive_not_found')) throw error;
  }
  if (present !== undefined && isSameArchive(present, opened)) return;
  throw new LoaderError(
    'archive_changed',
    'The image archive was replaced or removed while it was unlocked: unlock again when it has its final form.',
  );
}

/** Tells whether there is an archive at all. @throws LoaderError `archive_unreadable` when that can't be told */
export async function archiveExists(path: string): Promise<boolean> {
  try {
    if ((await stat(path)).isFile()) return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw unreadableArchive(path, error);
  }
  throw new LoaderError(
    'archive_unreadable',
    `${path} is not a file: put the image archive there, or set IMAGES_PATH.`,
  );
}

/** @throws LoaderError `archive_not_found`, `archive_unreadable` */
export async function openArchiveFile(path: string): Promise<FileHandle> {
  try {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    return await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (isMissing(error)) throw new LoaderError('archive_not_found', 'Encrypted archive not found', { cause: error });
    throw unreadableArchive(path, error);
  }
}

export function unreadableArchive(path: string, error: unknown): LoaderError {
  const code = systemErrorCode(error) ?? 'unknown reason';
  return new LoaderError('archive_unreadable', `The image archive ${path} can't be read (${code}).`, { cause: error });
}

function isMissing(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR'].includes(systemErrorCode(error) ?? '');
}
