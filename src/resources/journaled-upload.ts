import type { S3CdnManager } from '../cdn/s3-cdn-manager.ts';
import type { S3Upload, SentPart, UploadTarget } from '../cdn/s3-upload.ts';
import { hasErrorCode, LoaderError, toError, type ErrorCode } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import { bigPartFile, type ResourceName } from '../resource-name.ts';
import type { Session } from '../upstream/upstream.ts';
import { smallPartSha256 } from './envelope-parts.ts';
import { isOf, PartPlaces } from './part-places.ts';
import type { JournalEntry, PublicationRecord, UploadJournal } from './upload-journal.ts';

/*
 * How the two parts of an upload become visible as one version (docs/protocol.md section 6). The Resource API has no
 * compare-and-set, and no transaction spans it and the CDN. So this order holds:
 *
 * 1. The object of the big part carries the digest of its small part from the beginning. A load refuses any other pair.
 * 2. The journal knows both small parts before the new one is stored.
 * 3. The small part is stored, then the object is completed.
 * 4. After a failure the object is asked for: it stands, or it never will and the earlier small part is put back. While
 *    neither is known, the entry stays in the journal.
 * 5. After a success both parts are looked at, at once and once more later: a crossing upload may have stored its small
 *    part in between. The upload whose object stands stores its own again; the other one is told.
 */

/** What an upload needs of a Session. */
export interface UploadSession extends Pick<Session, 'resourceAesKey'> {
  readonly api: Pick<Session['api'], 'decrypt' | 'encrypt' | 'fetchResource' | 'storeResource'>;
  readonly cdn: Pick<S3CdnManager, 'lookAt' | 'removeEmptyUploads'> & {
    startUpload(...place: Parameters<S3CdnManager['startUpload']>): Promise<PartsUpload>;
    resumeUpload(target: UploadTarget, parts: readonly SentPart[]): PartsUpload;
  };
}

type PartsUpload = Pick<S3Upload, 'abort' | 'complete' | 'parts' | 'sendPart' | 'target'>;

export interface JournaledUploadOptions {
  readonly session: Pick<UploadSession, 'api' | 'cdn'>;
  readonly journal: Pick<UploadJournal, 'begin'>;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** After these the CDN may have done what it was asked. */
const UNKNOWN_OUTCOMES = [
  'cdn_unreachable',
  'cdn_timeout',
  'cdn_error',
  'cdn_invalid_response',
  'cdn_foreign_answer',
] as const satisfies readonly ErrorCode[];

/** How often two crossing uploads may store their small parts in turn, before one of them gives up. */
const MAX_LOOKS = 5;

/**
 * One upload of a resource, and its entry in the journal. It becomes visible by `publish`. The disposal removes an upload
 * that was not published; what could not be removed stays in the journal. It never fails.
 */
export class JournaledUpload implements AsyncDisposable {
  readonly #resource: ResourceName;
  readonly #places: PartPlaces;
  readonly #api: Pick<UploadSession['api'], 'encrypt'>;
  readonly #upload: PartsUpload;
  readonly #entry: JournalEntry;
  readonly #logger: Logger;
  #isDraft = true;

  private constructor(
    upload: PartsUpload,
    entry: JournalEntry,
    { session, logger }: Pick<JournaledUploadOptions, 'session' | 'logger'>,
  ) {
    const { folder, name } = entry.record;
    this.#resource = { folder, name };
    this.#upload = upload;
    this.#entry = entry;
    this.#api = session.api;
    this.#places = new PartPlaces(this.#resource, session);
    this.#logger = logger;
  }

  /** @throws LoaderError whose code begins with `cdn_`; the reason of the signal */
  static async begin(
    resource: ResourceName,
    smallSha256: string,
    options: JournaledUploadOptions,
  ): Promise<JournaledUpload> {
    const { session, journal, signal } = options;
    const entry = await journal.begin(resource.folder, resource.name);
    try {
      const upload = await session.cdn.startUpload(resource.folder, bigPartFile(resource), smallSha256, signal);
      await entry.note({ ...entry.record, target: upload.target });
      return new JournaledUpload(upload, entry, options);
    } catch (error) {
      // After these errors the CDN may have begun an upload whose ID was lost. Its removal is left to the journal.
      const isUnknown = hasErrorCode(error, ...UNKNOWN_OUTCOMES);
      if (isUnknown) entry[Symbol.dispose]();
      else await entry.remove();
      throw error;
    }
  }

  /**
   * Ends an upload that was left in the journal: completes it when its small part stands at the Resource API, and removes
   * it otherwise.
   *
   * @returns false when the entry stays, since it was made for another user, who must log in
   * @throws LoaderError when the entry stays and another try may succeed
   */
  static async recover(
    entry: JournalEntry,
    { session, logger }: Pick<JournaledUploadOptions, 'session' | 'logger'>,
  ): Promise<boolean> {
    const { folder, name, startedAtMs, target, publication } = entry.record;
    if (target === undefined) {
      await session.cdn.removeEmptyUploads(folder, bigPartFile({ folder, name }), startedAtMs);
      await entry.remove();
      return true;
    }
    const upload = session.cdn.resumeUpload(target, publication?.parts ?? []);
    const left = new JournaledUpload(upload, entry, { session, logger });
    if (publication === undefined) {
      await left.#remove();
      return true;
    }
    const small = left.#places.decrypt(publication.small, publication.smallSha256);
    if (small === undefined) return false;
    await left.#recover(small, publication);
    return true;
  }

  /** As `S3Upload.sendPart`. */
  async sendPart(number: number, bytes: Buffer<ArrayBuffer>, sha256: string): Promise<void> {
    await this.#upload.sendPart(number, bytes, sha256);
  }

  /**
   * Makes both parts visible. A client that leaves meanwhile stops nothing: half-way, the parts do not fit each other.
   *
   * @throws LoaderError `upload_superseded` when another upload stands, or of the API or the CDN. The earlier resource
   * then stands again, or the journal has what is needed for that.
   */
  async publish(small: Buffer): Promise<void> {
    const earlier = await this.#places.fetchSmall();
    const publication: PublicationRecord = {
      parts: [...this.#upload.parts],
      smallSha256: smallPartSha256(small),
      small: this.#api.encrypt(small).toString('base64'),
      ...(earlier !== undefined && {
        earlier: this.#api.encrypt(earlier).toString('base64'),
        earlierSha256: smallPartSha256(earlier),
      }),
    };
    this.#isDraft = false;
    using entry = this.#entry;
    await entry.commit({ ...entry.record, publication });
    try {
      await this.#places.storeSmall(small);
      await this.#upload.complete();
    } catch (error) {
      if (!(await this.#standsDespite(publication, earlier))) throw error;
    }
    await this.#lookAfterSuccess(small, publication);
    await entry.note({ ...entry.record, publication: { ...publication, standsSinceMs: Date.now() } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isDraft) return;
    this.#isDraft = false;
    using _entry = this.#entry;
    try {
      await this.#remove();
    } catch (error) {
      this.#logger.warn(
        { err: error, resource: this.#resource },
        'An unfinished upload could not be removed from the CDN; it will be tried again',
      );
    }
  }

  async #remove(): Promise<void> {
    await this.#upload.abort();
    await this.#entry.remove();
  }

  async #recover(small: Buffer, publication: PublicationRecord): Promise<void> {
    if (!(await this.#places.hasObjectOf(publication)) && !(await this.#completeLate(publication))) return;
    try {
      await this.#lookAtBoth(small, publication);
    } catch (error) {
      if (!hasErrorCode(error, 'upload_superseded')) throw error;
      this.#logger.info({ resource: this.#resource }, 'Another upload has taken the place of an upload');
    }
    await this.#entry.remove();
  }

  /** Completes an upload that was broken off between its two parts. Returns false when it never will be. */
  async #completeLate(publication: PublicationRecord): Promise<boolean> {
    if (publication.standsSinceMs !== undefined) {
      await this.#entry.remove(); // Another upload has replaced it since.
      return false;
    }
    const present = await this.#places.fetchSmall();
    if (present === undefined || smallPartSha256(present) !== publication.smallSha256) {
      await this.#remove(); // Its small part was not stored, or another upload has replaced that.
      return false;
    }
    try {
      await this.#upload.complete();
    } catch (error) {
      const earlier = this.#places.decrypt(publication.earlier, publication.earlierSha256);
      if (!(await this.#standsAfterFailure(publication, earlier))) {
        this.#logger.warn({ err: error, resource: this.#resource }, 'An upload that was broken off was taken back');
        return false;
      }
    }
    this.#logger.info({ resource: this.#resource }, 'An upload that was broken off was completed');
    return true;
  }

  /** Never fails: the failure of the upload is the one to be told. What is unknown is left to the journal. */
  async #standsDespite(publication: PublicationRecord, earlier: Buffer | undefined): Promise<boolean> {
    try {
      return await this.#standsAfterFailure(publication, earlier);
    } catch (error) {
      const { folder, name } = this.#resource;
      this.#logger.error(
        { err: error, resource: this.#resource },
        `An upload of ${folder}/${name} was broken off between its two parts; it will be completed or taken back`,
      );
      return false;
    }
  }

  /**
   * Finds out what stands after a failure. When the upload never will, it puts the earlier small part back and removes
   * the entry.
   *
   * @throws LoaderError while that is unknown, or when the earlier part could not be put back: the entry stays
   */
  async #standsAfterFailure(publication: PublicationRecord, earlier: Buffer | undefined): Promise<boolean> {
    // The look comes second: until the removal is answered, a Complete that the CDN has received may still succeed.
    const [removal] = await Promise.allSettled([this.#upload.abort()]);
    const [look] = await Promise.allSettled([this.#places.hasObjectOf(publication)]);
    if (look.status === 'fulfilled' && look.value) return true;
    if (removal.status === 'rejected') throw toError(removal.reason);
    if (removal.value === 'gone' && look.status === 'rejected') throw toError(look.reason);
    const present = await this.#places.fetchSmall();
    const isOurs = present !== undefined && smallPartSha256(present) === publication.smallSha256;
    if (isOurs && earlier !== undefined) await this.#places.storeSmall(earlier);
    await this.#entry.remove();
    return false;
  }

  /** The first look. One that fails is no failure of the upload, which has succeeded: the second one is still to come. */
  async #lookAfterSuccess(small: Buffer, publication: PublicationRecord): Promise<void> {
    try {
      await this.#lookAtBoth(small, publication);
    } catch (error) {
      if (hasErrorCode(error, 'upload_superseded')) {
        await this.#entry.remove();
        throw error;
      }
      this.#logger.warn({ err: error, resource: this.#resource }, 'An upload could not be looked at after its end');
    }
  }

  /**
   * Looks at both parts until they are those of this upload.
   *
   * @throws LoaderError `upload_superseded` when the object is another upload's; of the API or the CDN
   */
  async #lookAtBoth(small: Buffer, publication: PublicationRecord): Promise<void> {
    let overwritten: Buffer | undefined;
    for (let looks = 0; looks < MAX_LOOKS; looks++) {
      const version = await this.#places.lookAtObject();
      if (version === undefined || !isOf(version, publication)) {
        // The other upload ended after the small part was stored once more: its own is put back.
        if (overwritten !== undefined && smallPartSha256(overwritten) === version?.smallSha256)
          await this.#places.storeSmall(overwritten);
        throw superseded();
      }
      const present = await this.#places.fetchSmall();
      if (present !== undefined && smallPartSha256(present) === publication.smallSha256) return;
      overwritten = present;
      await this.#places.storeSmall(small);
    }
    throw superseded();
  }
}

function superseded(): LoaderError {
  return new LoaderError(
    'upload_superseded',
    'Another upload of this resource ended at the same time, and its version stands: upload again if yours should.',
  );
}
