import { setImmediate } from 'node:timers/promises';
import type { Session } from '../upstream/session.ts';
import type { BigPartCache } from '../cache/big-part-cache.ts';
import type { DraftFile } from '../files/draft-file.ts';
import type { S3Upload } from '../cdn/s3-upload.ts';
import { LoaderError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { encryptEnvelope } from '../security/envelope-cipher.ts';
import { readFileChunks } from '../files/file-chunks.ts';
import { releaseChunk } from '../files/release-chunk.ts';
import { PART_LENGTH, S3PartUploader } from './s3-part-uploader.ts';
import { bigPartFile, type ResourceName } from '../resource-name.ts';
import { EnvelopeSplitter } from './envelope-parts.ts';

export interface UploadDraftOptions {
  readonly session: Session;
  readonly cache: BigPartCache;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/**
 * A resource whose parts are ready, but which nobody can see yet: its big part is an S3 upload that is not completed
 * and an unfinished file of the cache.
 */
export class UploadDraft {
  readonly small: Buffer;
  /** Bytes. */
  readonly bigLength: number;
  readonly upload: S3Upload;
  readonly #options: UploadDraftOptions;
  #file: DraftFile | undefined;

  private constructor(
    options: UploadDraftOptions,
    parts: { small: Buffer; bigLength: number; upload: S3Upload; file: DraftFile | undefined },
  ) {
    this.#options = options;
    this.small = parts.small;
    this.bigLength = parts.bigLength;
    this.upload = parts.upload;
    this.#file = parts.file;
  }

  /** Encrypts, splits and sends `plaintext`. On any failure nothing is left, in the bucket or on the disk. */
  static async receive(
    resource: ResourceName,
    plaintext: AsyncIterable<Buffer>,
    options: UploadDraftOptions,
  ): Promise<UploadDraft> {
    const aesKey = options.session.resourceAesKey();
    const upload = await options.session.cdn.startUpload(resource.folder, bigPartFile(resource), options.signal);
    const file = await createFile(options);
    const parts = new S3PartUploader(upload, file, options.logger);
    try {
      const splitter = new EnvelopeSplitter();
      for await (const chunk of encryptEnvelope(plaintext, aesKey)) {
        const big = splitter.push(chunk);
        await parts.push(big);
        releaseChunk(big);
        // Chunks that have piled up would all be encrypted before the event loop turns again.
        await setImmediate();
      }
      await parts.push(splitter.end());
      await parts.end();
      if (!parts.isFileComplete) await removeFile(file, options.logger);
      const bigFile = parts.isFileComplete ? file : undefined;
      return new UploadDraft(options, { small: splitter.small, bigLength: parts.length, upload, file: bigFile });
    } catch (error) {
      await parts.settle();
      await abortUpload(upload, options.logger);
      await removeFile(file, options.logger);
      throw error;
    }
  }

  /** Undefined when the disk failed: the upload does without. */
  get file(): DraftFile | undefined {
    return this.#file;
  }

  /** Puts the file on the disk. It never fails: a file that can't be is given up. */
  async flushFile(): Promise<void> {
    const file = this.#file;
    try {
      await file?.sync();
    } catch (error) {
      this.#options.logger.warn({ err: error }, 'An upload goes on without the cache');
      this.#file = undefined;
      await removeFile(file, this.#options.logger);
    }
  }

  /** The same draft for another place on the CDN, sent again from the file. This one is used up. */
  async moveTo(resource: ResourceName): Promise<UploadDraft> {
    const { session, logger, signal } = this.#options;
    await abortUpload(this.upload, logger);
    if (this.file === undefined) {
      throw new LoaderError(
        'cache_unusable',
        'The folder came after the file and the cache has no copy to send again: send the folder field first.',
      );
    }
    let upload: S3Upload | undefined;
    try {
      upload = await session.cdn.startUpload(resource.folder, bigPartFile(resource), signal);
      const parts = new S3PartUploader(upload, undefined, logger);
      try {
        for await (const chunk of readFileChunks(this.file.handle, 0, this.bigLength, PART_LENGTH))
          await parts.push(chunk);
        await parts.end();
      } finally {
        await parts.settle();
      }
    } catch (error) {
      if (upload !== undefined) await abortUpload(upload, logger);
      await removeFile(this.file, logger);
      throw error;
    }
    return new UploadDraft(this.#options, { small: this.small, bigLength: this.bigLength, upload, file: this.file });
  }

  /** Removes all that was made for it; harmless after `moveTo` failed. */
  async discard(): Promise<void> {
    await abortUpload(this.upload, this.#options.logger);
    await this.release();
  }

  /** Closes the file, and removes it if it was not published. */
  async release(): Promise<void> {
    await removeFile(this.file, this.#options.logger);
  }
}

async function createFile({ cache, logger }: UploadDraftOptions): Promise<DraftFile | undefined> {
  try {
    return await cache.createDraft();
  } catch (error) {
    logger.warn({ err: error }, 'An upload goes on without the cache');
    return undefined;
  }
}

async function removeFile(file: DraftFile | undefined, logger: Logger): Promise<void> {
  try {
    await file?.discard();
    await file?.close();
  } catch (error) {
    logger.warn({ err: error }, 'An unfinished file of the cache could not be removed');
  }
}

async function abortUpload(upload: S3Upload, logger: Logger): Promise<void> {
  try {
    await upload.abort();
  } catch (error) {
    logger.error(
      { err: error },
      'An unfinished upload could not be removed from the CDN; its parts stay in the bucket',
    );
  }
}
