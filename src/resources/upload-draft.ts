import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import type { BigPartCache } from '../cache/big-part-cache.ts';
import { toCutFileError } from '../cache/cache-error.ts';
import { hasErrorCode, LoaderError, type ErrorCode } from '../errors.ts';
import type { DraftFile } from '../files/draft-file.ts';
import { FILE_CHUNK_LENGTH, readFileChunks } from '../files/file-chunks.ts';
import { releaseChunk } from '../files/release-chunk.ts';
import { CHUNK_LENGTH, ChunkDigester } from '../manifest/chunk-digester.ts';
import { bigPartFile, type ResourceName } from '../resource-name.ts';
import { encryptEnvelope } from '../security/envelope-cipher.ts';
import { endEntry } from './end-entry.ts';
import { EnvelopeSplitter, smallPartSha256 } from './envelope-parts.ts';
import type { ManifestFacts } from './manifest-publication.ts';
import { Publication, type PartsUpload, type UploadSession } from './publication.ts';
import type { ResourceManifests } from './resource-manifests.ts';
import { S3PartUploader, type S3PartUploaderOptions } from './s3-part-uploader.ts';
import type { JournalEntry, UploadJournal } from './upload-journal.ts';

export interface UploadDraftOptions extends S3PartUploaderOptions {
  readonly session: UploadSession;
  readonly journal: Pick<UploadJournal, 'begin'>;
  readonly cache: Pick<BigPartCache, 'createDraft'>;
  readonly manifests: ResourceManifests;
}

/** An S3 upload, and its entry in the journal. */
interface BegunUpload {
  readonly upload: PartsUpload;
  readonly entry: JournalEntry;
  readonly publication: Publication;
}

/** After these the CDN may have begun an upload whose ID was lost. Its removal is left to the journal. */
const UNKNOWN_OUTCOMES = [
  'cdn_unreachable',
  'cdn_timeout',
  'cdn_error',
  'cdn_invalid_response',
  'cdn_foreign_answer',
] as const satisfies readonly ErrorCode[];

/**
 * A resource whose parts are ready, but which no client can see yet: its big part is an S3 upload that is not completed,
 * and a draft of the cache. The disposal removes both, unless they were completed and published; what could not be removed
 * from the CDN stays in the journal. It never fails.
 */
export class UploadDraft implements AsyncDisposable {
  readonly #options: UploadDraftOptions;
  #resource: ResourceName;
  /** Undefined before the first one has begun, and after its end. */
  #begun: BegunUpload | undefined;
  #file: DraftFile | undefined;
  #small: Buffer = Buffer.alloc(0);
  #facts: ManifestFacts | undefined;
  #manifest: Buffer | undefined;

  private constructor(resource: ResourceName, options: UploadDraftOptions) {
    this.#resource = resource;
    this.#options = options;
  }

  /** Encrypts, splits and sends `plaintext`. After a failure nothing is left, in the bucket or on the disk. */
  static async create(
    resource: ResourceName,
    plaintext: AsyncIterable<Buffer>,
    options: UploadDraftOptions,
  ): Promise<UploadDraft> {
    const draft = new UploadDraft(resource, options);
    await using owned = new AsyncDisposableStack();
    owned.use(draft);
    await draft.#receive(plaintext);
    owned.move();
    return draft;
  }

  get resource(): ResourceName {
    return this.#resource;
  }

  get small(): Buffer {
    return this.#small;
  }

  /** What was received. */
  get facts(): ManifestFacts {
    if (this.#facts === undefined) throw new Error('the facts of an upload were read before its end');
    return this.#facts;
  }

  /** The manifest as it was signed; undefined before `publish` has succeeded. */
  get manifest(): Buffer | undefined {
    return this.#manifest;
  }

  /** The whole big part; undefined when the disk failed, which the upload does without. */
  get file(): DraftFile | undefined {
    return this.#file;
  }

  /** Puts the file on the disk. It never fails: a file that can't be flushed is given up. */
  async flushFile(): Promise<void> {
    try {
      await this.#file?.sync();
    } catch (error) {
      this.#options.logger.warn({ err: error }, 'An upload goes on without the cache');
      await this.#giveUpFile();
    }
  }

  /**
   * Moves the draft to another place on the CDN: its big part is sent again from the file.
   *
   * @throws LoaderError `cache_unusable` when there is no file, or it can't be read; any code that begins with `cdn_`
   */
  async moveTo(resource: ResourceName): Promise<void> {
    await this.#removeUpload();
    if (this.#file === undefined) {
      throw new LoaderError(
        'cache_unusable',
        'The folder came after the file and the cache has no copy to send again: send the folder field first.',
      );
    }
    this.#resource = resource;
    await using parts = new S3PartUploader(await this.#begin(this.#small), undefined, this.#options);
    try {
      const chunks = readFileChunks(this.#file.handle, 0, this.facts.big.length, FILE_CHUNK_LENGTH);
      for await (const chunk of chunks) await parts.push(chunk);
    } catch (error) {
      throw toCutFileError(error);
    }
    await parts.end();
  }

  /** Makes both parts and the manifest visible upstream. @throws as `Publication.publish` does */
  async publish(): Promise<void> {
    if (this.#begun === undefined) throw new Error('the draft of an upload was published without an S3 upload');
    const { publication, entry } = this.#begun;
    const earlier = await publication.earlier();
    // From here on, what a failure leaves is for the publication to remove, or for the journal.
    this.#begun = undefined;
    using _entry = entry;
    this.#manifest = await publication.publish(this.#small, this.facts, earlier);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#removeUpload();
    await this.#giveUpFile();
  }

  async #receive(plaintext: AsyncIterable<Buffer>): Promise<void> {
    const aesKey = this.#options.session.resourceAesKey();
    await this.#createFile();
    await using owned = new AsyncDisposableStack();
    let parts: S3PartUploader | undefined;
    const splitter = new EnvelopeSplitter();
    const whole = new PlaintextDigest();
    const chunks = new ChunkDigester();
    for await (const chunk of encryptEnvelope(whole.of(plaintext), aesKey)) {
      const big = splitter.push(chunk);
      if (big.length === 0) continue;
      parts ??= owned.use(await this.#beginParts(splitter.small));
      chunks.push(big);
      await parts.push(big);
      releaseChunk(big);
      // Chunks that have piled up would otherwise all be encrypted before the event loop turns again.
      await setImmediate();
    }
    const rest = splitter.end();
    this.#small = splitter.small;
    parts ??= owned.use(await this.#beginParts(this.#small));
    chunks.push(rest);
    await parts.push(rest);
    await parts.sendRest();
    this.#begun?.publication.askForEarlier();
    await parts.end();
    const { length } = chunks;
    this.#facts = {
      ...whole.end(),
      small: { length: this.#small.length, sha256: smallPartSha256(this.#small) },
      big: { length, chunkLength: CHUNK_LENGTH, chunkSha256: chunks.end() },
    };
    if (!parts.isFileComplete) await this.#giveUpFile();
  }

  async #beginParts(small: Buffer): Promise<S3PartUploader> {
    return new S3PartUploader(await this.#begin(small), this.#file, this.#options);
  }

  /**
   * The object carries the digest of the small part from its beginning, so the upload begins when that is known.
   *
   * @throws LoaderError whose code begins with `cdn_`; the reason of the signal
   */
  async #begin(small: Buffer): Promise<PartsUpload> {
    const { session, journal, manifests, logger, signal } = this.#options;
    const { folder, name } = this.#resource;
    const entry = await journal.begin(folder, name);
    const failures: LoaderError[] = [];
    const onRepeat = (failure: LoaderError) => failures.push(failure);
    try {
      const upload = await session.cdn.startUpload(folder, bigPartFile({ folder, name }), smallPartSha256(small), {
        signal,
        onRepeat,
      });
      await entry.note({ ...entry.record, target: upload.target, ...(failures.length > 0 && { isRepeated: true }) });
      this.#begun = { upload, entry, publication: new Publication({ session, upload, entry, manifests, logger }) };
      return upload;
    } catch (error) {
      const isUnknown = [...failures, error].some((failure) => hasErrorCode(failure, ...UNKNOWN_OUTCOMES));
      if (isUnknown) entry[Symbol.dispose]();
      else await entry.remove();
      throw error;
    }
  }

  async #removeUpload(): Promise<void> {
    if (this.#begun === undefined) return;
    const { upload, entry: owned } = this.#begun;
    this.#begun = undefined;
    using entry = owned;
    try {
      await upload.abort();
      await endEntry(entry, this.#options.session.cdn);
    } catch (error) {
      this.#options.logger.warn(
        { err: error, resource: this.#resource },
        'An unfinished upload could not be removed from the CDN; it will be tried again',
      );
    }
  }

  async #createFile(): Promise<void> {
    const { cache, logger } = this.#options;
    try {
      this.#file = await cache.createDraft();
    } catch (error) {
      logger.warn({ err: error }, 'An upload goes on without the cache');
    }
  }

  /** Closes the file, and removes it unless it was published. */
  async #giveUpFile(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    try {
      await file?.discard();
    } catch (error) {
      this.#options.logger.warn({ err: error }, 'An unfinished file of the cache could not be removed');
    }
    await file?.[Symbol.asyncDispose]();
  }
}

/** Length and SHA-256 of a plaintext that passes by. */
class PlaintextDigest {
  readonly #hash = createHash('sha256');
  #length = 0;

  async *of(plaintext: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, undefined> {
    for await (const chunk of plaintext) {
      this.#hash.update(chunk);
      this.#length += chunk.length;
      yield chunk;
    }
  }

  /** For once. */
  end(): Pick<ManifestFacts, 'length' | 'sha256'> {
    return { length: this.#length, sha256: this.#hash.digest('hex') };
  }
}
