import type { FileHandle } from 'node:fs/promises';
import { hasErrorCode, LoaderError, toError } from '../errors.ts';
import { EndOfFileError } from '../files/file-chunks.ts';
import {
  assertEnvelopeLength,
  MIN_ENVELOPE_LENGTH,
  PREFLIGHT_LENGTH,
  preflightEnvelope,
} from '../security/envelope.ts';
import { EnvelopeReader } from '../security/envelope-reader.ts';
import { archiveError } from './archive-error.ts';
import {
  assertUnchanged,
  identifyArchive,
  openArchiveFile,
  unreadableArchive,
  type ArchiveIdentity,
} from './archive-identity.ts';
import { compressionOf, type Compression } from './compression.ts';
import { isTarHeader, TAR_BLOCK_LENGTH } from './tar-header.ts';

/** An open archive whose key is known to be right. Its disposal closes its file: not while something is read. */
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

  /** @throws LoaderError `archive_changed` when another archive has taken its place */
  async assertUnchanged(): Promise<void> {
    await assertUnchanged(this.#path, this.identity);
  }

  /**
   * The error that tells why this archive could not be read. An archive that was replaced or overwritten while it was read
   * looks broken, and one that was cut ends early.
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
    // With a wrong padding the length is not known, but the first block can be read all the same.
    const reader = new EnvelopeReader(file, plaintextLength ?? identity.length - MIN_ENVELOPE_LENGTH, aesKey);
    const first = await reader.read(0, Math.min(TAR_BLOCK_LENGTH, reader.plaintextLength));
    const compression = compressionOf(first);
    const isWhole = plaintextLength !== undefined;
    const begins = compression !== 'none' || isTarHeader(first);
    if (isWhole && begins) return new OpenArchive(path, file, { reader, identity, compression });
    if (isWhole && first.length < TAR_BLOCK_LENGTH) throw archiveError('it is too short to hold an image');
    // One wrong key in 256 gives a good padding, but none gives this mark of a tar.
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

/** Undefined when the padding is wrong. @throws LoaderError `archive_invalid` for a length that no envelope has */
async function plaintextLengthOf(file: FileHandle, length: number, aesKey: Buffer): Promise<number | undefined> {
  try {
    assertEnvelopeLength(length);
  } catch (error) {
    throw archiveError(`it has ${length} bytes, and a whole one at least 32, in blocks of 16: it is empty or cut`, {
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
