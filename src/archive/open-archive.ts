import { constants } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { hasErrorCode, LoaderError, systemErrorCode, toError } from '../errors.ts';
import { EndOfFileError } from '../files/file-chunks.ts';
import {
  assertEnvelopeLength,
  BLOCK_LENGTH,
  MIN_ENVELOPE_LENGTH,
  PREFLIGHT_LENGTH,
  preflightEnvelope,
} from '../security/envelope.ts';
import { EnvelopeReader } from '../security/envelope-reader.ts';
import { archiveError } from './archive-error.ts';
import { compressionOf, type Compression } from './compression.ts';
import { isTarHeader, TAR_BLOCK_LENGTH } from './tar-header.ts';

/** Tells one archive from another that lies, or lay, under the same path. */
export interface ArchiveIdentity {
  /** Bytes of the envelope. */
  readonly length: number;
  /** ns since 1970, as text: a number can't hold it. */
  readonly modifiedNs: string;
  /** The IV of the envelope, in hex. It is random, so another archive has another one. */
  readonly iv: string;
}

/** Tells whether there is an archive. @throws LoaderError `archive_unreadable` when that can't be found out */
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

/**
 * The identity of the archive that lies under `path` now.
 *
 * @throws LoaderError `archive_not_found`, `archive_unreadable`
 */
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

export function isSameArchive(a: ArchiveIdentity, b: ArchiveIdentity): boolean {
  return a.length === b.length && a.modifiedNs === b.modifiedNs && a.iv === b.iv;
}

/** An open archive whose key is known to be right. Its disposal closes the file; no read may be under way then. */
export class OpenArchive implements AsyncDisposable {
  readonly reader: EnvelopeReader;
  readonly identity: ArchiveIdentity;
  /** Of the tar as a whole. */
  readonly compression: Compression;
  readonly #path: string;
  readonly #file: FileHandle;

  constructor(path: string, file: FileHandle, facts: Pick<OpenArchive, 'compression' | 'identity' | 'reader'>) {
    this.#path = path;
    this.#file = file;
    this.reader = facts.reader;
    this.identity = facts.identity;
    this.compression = facts.compression;
  }

  /** @throws LoaderError `archive_changed` when another archive, or none, lies under its path now */
  async assertUnchanged(): Promise<void> {
    let present: ArchiveIdentity | undefined;
    try {
      present = await readArchiveIdentity(this.#path);
    } catch (error) {
      if (!hasErrorCode(error, 'archive_not_found')) throw error;
    }
    if (present !== undefined && isSameArchive(present, this.identity)) return;
    throw new LoaderError(
      'archive_changed',
      'The image archive was replaced or removed during the unlock: unlock again when it is complete.',
    );
  }

  /**
   * Returns the error that tells why this archive could not be read. An archive that was replaced or overwritten while
   * it was read looks broken, and one that was cut ends early.
   */
  async explain(error: unknown): Promise<Error> {
    const isCut = error instanceof EndOfFileError;
    if (!isCut && !hasErrorCode(error, 'archive_invalid')) return toError(error);
    try {
      await this.assertUnchanged();
    } catch (change) {
      return toError(change);
    }
    return isCut ? cutArchive(error) : error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close().catch(() => undefined); // Nothing was written.
  }
}

/**
 * Opens the image archive (docs/protocol.md section 8) and looks at its two ends: a wrong key shows at both, a broken
 * archive at one.
 *
 * @throws LoaderError `archive_not_found`, `archive_unreadable`, `archive_invalid`, `archive_key_wrong`
 */
export async function openArchive(path: string, aesKey: Buffer): Promise<OpenArchive> {
  const file = await openArchiveFile(path);
  try {
    const identity = await identifyArchive(file);
    const plaintextLength = await plaintextLengthOf(file, identity.length, aesKey);
    // The length is unknown when the padding is wrong, but the first block can still be read.
    const reader = new EnvelopeReader(file, plaintextLength ?? identity.length - MIN_ENVELOPE_LENGTH, aesKey);
    const first = await reader.read(0, Math.min(TAR_BLOCK_LENGTH, reader.plaintextLength));
    const compression = compressionOf(first);
    const isWhole = plaintextLength !== undefined;
    const begins = compression !== 'none' || isTarHeader(first);
    if (isWhole && begins) return new OpenArchive(path, file, { reader, identity, compression });
    if (isWhole && first.length < TAR_BLOCK_LENGTH) throw archiveError('it is too short to hold an image');
    // One wrong key in 256 gives a valid padding, but none gives this mark of a tar.
    const isKeyRight = begins || first.toString('latin1', 257, 262) === 'ustar';
    if (!isKeyRight) {
      throw new LoaderError(
        'archive_key_wrong',
        "The image archive can't be decrypted with the key fragment of the Resource API: it was made for another one, or is not an image archive.",
      );
    }
    throw archiveError(isWhole ? 'its first header is damaged' : 'its end is damaged or missing');
  } catch (error) {
    await file.close();
    if (error instanceof LoaderError) throw error;
    if (error instanceof EndOfFileError) throw cutArchive(error);
    throw unreadableArchive(path, error);
  }
}

export function archiveNotFound(path: string, cause?: unknown): LoaderError {
  const message = `Encrypted archive not found: there is no ${path}. Put the archive there, or set IMAGES_PATH.`;
  return new LoaderError('archive_not_found', message, { cause });
}

/** @throws LoaderError `archive_not_found`, `archive_unreadable` */
async function openArchiveFile(path: string): Promise<FileHandle> {
  try {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    return await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (isMissing(error)) throw archiveNotFound(path, error);
    throw unreadableArchive(path, error);
  }
}

/** The identity of an open archive. @throws the system's error */
async function identifyArchive(file: FileHandle): Promise<ArchiveIdentity> {
  const { size, mtimeNs } = await file.stat({ bigint: true });
  const iv = Buffer.alloc(BLOCK_LENGTH);
  const { bytesRead } = await file.read(iv, 0, BLOCK_LENGTH, 0);
  return { length: Number(size), modifiedNs: String(mtimeNs), iv: iv.toString('hex', 0, bytesRead) };
}

/** Undefined when the padding is wrong. @throws LoaderError `archive_invalid` for a length that no envelope has */
async function plaintextLengthOf(file: FileHandle, length: number, aesKey: Buffer): Promise<number | undefined> {
  try {
    assertEnvelopeLength(length);
  } catch (error) {
    throw archiveError(`it has ${length} bytes, but a whole one has at least 32, in blocks of 16: it is empty or cut`, {
      cause: error,
    });
  }
  const end = Buffer.alloc(PREFLIGHT_LENGTH);
  await file.read(end, 0, PREFLIGHT_LENGTH, length - PREFLIGHT_LENGTH);
  try {
    return preflightEnvelope(length, end, aesKey);
  } catch (error) {
    if (hasErrorCode(error, 'envelope_invalid')) return undefined;
    throw error;
  }
}

function cutArchive(error: EndOfFileError): LoaderError {
  return archiveError('its file was cut while it was read', { cause: error });
}

function unreadableArchive(path: string, error: unknown): LoaderError {
  const code = systemErrorCode(error) ?? 'unknown reason';
  return new LoaderError('archive_unreadable', `The image archive ${path} can't be read (${code}).`, { cause: error });
}

function isMissing(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR'].includes(systemErrorCode(error) ?? '');
}
