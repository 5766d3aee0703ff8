import { NEVER } from '../async/abort.ts';
import { multipartEtag } from '../cdn/object-version.ts';
import type { ObjectVersion, S3CdnManager } from '../cdn/s3-cdn-manager.ts';
import type { S3Upload, SentPart, UploadTarget } from '../cdn/s3-upload.ts';
import { hasErrorCode, LoaderError, toError } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import { bigPartFile, smallPartFile, type ResourceName } from '../resource-name.ts';
import type { Session } from '../upstream/upstream.ts';
import { endEntry } from './end-entry.ts';
import { smallPartSha256 } from './envelope-parts.ts';
import { ManifestPublication, type ManifestFacts } from './manifest-publication.ts';
import type { ResourceManifests } from './resource-manifests.ts';
import type { JournalEntry, PublicationRecord } from './upload-journal.ts';

/*
 * How the two parts of an upload become visible as one version (docs/protocol.md section 6). The Resource API has no
 * compare-and-set, and no transaction spans it and the CDN. So this order holds:
 *
 * 1. The object of the big part carries the digest of its small part from the beginning. A load refuses any other pair.
 * 2. The journal knows both small parts before the new one is stored.
 * 3. The small part is stored, then the object is completed, then the manifest is written. The object says from its
 *    beginning that it has one, so a load waits for it.
 * 4. After a failure the object is asked for: it stands, or it never will and the earlier small part is put back. While
 *    neither is known, the entry stays in the journal.
 * 5. After a success both parts and the manifest are looked at, at once and once more later: a crossing upload may have
 *    stored its own in between. The upload whose object stands stores its own again; the other one is told.
 */

/** What an upload needs of a Session. */
export interface UploadSession extends Pick<Session, 'resourceAesKey'> {
  readonly api: Pick<Session['api'], 'decrypt' | 'encrypt' | 'fetchResource' | 'storeResource'>;
  readonly cdn: Pick<S3CdnManager, 'getSmallObject' | 'lookAt' | 'putSmallObject' | 'removeEmptyUploads'> & {
    startUpload(...place: Parameters<S3CdnManager['startUpload']>): Promise<PartsUpload>;
    resumeUpload(target: UploadTarget, parts: readonly SentPart[]): PartsUpload;
  };
}

/** What an upload needs of an S3Upload. */
export type PartsUpload = Pick<S3Upload, 'abort' | 'complete' | 'parts' | 'sendPart' | 'target'>;

export interface PublicationOptions {
  readonly session: UploadSession;
  readonly upload: Pick<PartsUpload, 'abort' | 'complete' | 'parts'>;
  readonly entry: JournalEntry;
  readonly manifests: ResourceManifests;
  readonly logger: Logger;
}

/**
 * How old the earlier small part may be when the new one is stored, in ms: younger than the second look of an upload that
 * has ended since. Were that part lost, its upload would still find out.
 */
const MAX_EARLIER_AGE_MS = 2_000;

/** How often two crossing uploads may store their small parts in turn, before one of them gives up. */
const MAX_LOOKS = 5;

/** An upload on the way to be seen: its small part at the API, its big part on the CDN. */
export class Publication {
  readonly #resource: ResourceName;
  readonly #options: PublicationOptions;
  #earlier: { readonly askedAtMs: number; readonly small: Promise<Buffer | undefined> } | undefined;

  constructor(options: PublicationOptions) {
    const { folder, name } = options.entry.record;
    this.#resource = { folder, name };
    this.#options = options;
  }

  /** Asks for the earlier small part while the last bytes are sent, so that the client need not wait for it. */
  askForEarlier(): void {
    this.#earlier = { askedAtMs: performance.now(), small: this.fetchSmall() };
    this.#earlier.small.catch(() => undefined); // `earlier` throws it, or asks again.
  }

  /** The small part that stands now, for `publish`. @throws LoaderError of ApiSession */
  async earlier(): Promise<Buffer | undefined> {
    const asked = this.#earlier;
    const isFresh = asked !== undefined && performance.now() - asked.askedAtMs <= MAX_EARLIER_AGE_MS;
    return await (isFresh ? asked.small : this.fetchSmall());
  }

  /**
   * Makes both parts and the manifest visible, in the place of those of an `earlier` small part, and returns the manifest.
   * A client that leaves meanwhile stops nothing: half-way, the parts do not fit each other.
   *
   * @throws LoaderError `upload_superseded` when another upload stands, or of the API or the CDN. The earlier resource
   * then stands again, or the journal has what is needed for that, or for the manifest that is still missing.
   */
  async publish(small: Buffer, facts: ManifestFacts, earlier: Buffer | undefined): Promise<Buffer | undefined> {
    const { session, upload, entry } = this.#options;
    const publication: PublicationRecord = {
      parts: [...upload.parts],
      smallSha256: smallPartSha256(small),
      small: session.api.encrypt(small).toString('base64'),
      manifest: { ...facts, big: { ...facts.big, chunkSha256: [...facts.big.chunkSha256] } },
      ...(earlier !== undefined && {
        earlier: session.api.encrypt(earlier).toString('base64'),
        earlierSha256: smallPartSha256(earlier),
      }),
    };
    await entry.commit({ ...entry.record, publication });
    try {
      await this.#storeSmall(small);
      await upload.complete();
    } catch (error) {
      if (!(await this.#standsDespite(publication, earlier))) throw error;
    }
    const manifest = this.#manifestOf(publication);
    await manifest?.write();
    await this.#lookAfterSuccess(small, publication);
    await entry.note({ ...entry.record, publication: { ...publication, standsSinceMs: Date.now() } });
    return manifest?.sealed;
  }

  /** Never fails: the failure of the upload is the one to be told. What is unknown is left to the journal. */
  async #standsDespite(publication: PublicationRecord, earlier: Buffer | undefined): Promise<boolean> {
    try {
      return await this.standsAfterFailure(publication, earlier);
    } catch (error) {
      const { folder, name } = this.#resource;
      this.#options.logger.error(
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
  async standsAfterFailure(publication: PublicationRecord, earlier: Buffer | undefined): Promise<boolean> {
    // The look comes second: until the removal is answered, a Complete that the CDN has received may still succeed.
    const [removal] = await Promise.allSettled([this.#options.upload.abort()]);
    const [look] = await Promise.allSettled([this.hasObjectOf(publication)]);
    if (look.status === 'fulfilled' && look.value) return true;
    if (removal.status === 'rejected') throw toError(removal.reason);
    if (removal.value === 'gone' && look.status === 'rejected') throw toError(look.reason);
    const present = await this.fetchSmall();
    const isOurs = present !== undefined && smallPartSha256(present) === publication.smallSha256;
    if (isOurs && earlier !== undefined) await this.#storeSmall(earlier);
    await this.#end();
    return false;
  }

  /** The first look. One that fails is no failure of the upload, which has succeeded: the second one is still to come. */
  async #lookAfterSuccess(small: Buffer, publication: PublicationRecord): Promise<void> {
    try {
      await this.lookAtBoth(small, publication);
    } catch (error) {
      if (hasErrorCode(error, 'upload_superseded')) {
        await Promise.allSettled([this.#end()]); // While it fails, the entry stays.
        throw error;
      }
      this.#options.logger.warn(
        { err: error, resource: this.#resource },
        'An upload could not be looked at after its end',
      );
    }
  }

  /**
   * Looks at both parts and the manifest until they are those of this upload, and stores again what is not.
   *
   * @throws LoaderError `upload_superseded` when the object is another upload's; of the API or the CDN
   */
  async lookAtBoth(small: Buffer, publication: PublicationRecord): Promise<void> {
    const manifest = this.#manifestOf(publication);
    let overwritten: Buffer | undefined;
    for (let looks = 0; looks < MAX_LOOKS; looks++) {
      // Side by side, since the client waits. Whichever comes first: a crossing upload may also begin after both.
      const [version, present, hasManifest] = await Promise.all([
        this.#lookAtObject(),
        this.fetchSmall(),
        manifest?.stands() ?? true,
      ]);
      if (version === undefined || !isOf(version, publication)) {
        // The other upload ended after the small part was stored once more: its own is put back.
        if (overwritten !== undefined && smallPartSha256(overwritten) === version?.smallSha256)
          await this.#storeSmall(overwritten);
        throw superseded();
      }
      if (!hasManifest) await manifest?.write();
      if (present !== undefined && smallPartSha256(present) === publication.smallSha256) {
        if (hasManifest) return;
        continue;
      }
      overwritten = present;
      await this.#storeSmall(small);
    }
    throw superseded();
  }

  /** Undefined for an upload of an earlier version, which has none. */
  #manifestOf(publication: PublicationRecord): ManifestPublication | undefined {
    if (publication.manifest === undefined) return undefined;
    const { session, manifests } = this.#options;
    return new ManifestPublication({
      resource: this.#resource,
      facts: publication.manifest,
      cdn: session.cdn,
      resourceAesKey: session.resourceAesKey(),
      manifests,
      assertStands: async () => {
        if (!(await this.hasObjectOf(publication))) throw superseded();
      },
    });
  }

  async #end(): Promise<void> {
    await endEntry(this.#options.entry, this.#options.session.cdn);
  }

  /** The object that stands on the CDN; undefined when there is none. @throws as `S3CdnManager.lookAt` does */
  async #lookAtObject(): Promise<ObjectVersion | undefined> {
    return await this.#options.session.cdn.lookAt(this.#resource.folder, bigPartFile(this.#resource), NEVER);
  }

  /** Whether the object that stands on the CDN is that of an upload. @throws as `S3CdnManager.lookAt` does */
  async hasObjectOf(publication: PublicationRecord): Promise<boolean> {
    const version = await this.#lookAtObject();
    return version !== undefined && isOf(version, publication);
  }

  /**
   * The small part that stands at the API; undefined when there is none, or one that can't be read.
   *
   * @throws LoaderError of ApiSession
   */
  async fetchSmall(): Promise<Buffer | undefined> {
    try {
      return await this.#options.session.api.fetchResource(this.#resource.folder, smallPartFile(this.#resource), NEVER);
    } catch (error) {
      if (hasErrorCode(error, 'resource_not_in_api', 'envelope_invalid')) return undefined;
      throw error;
    }
  }

  /** @throws LoaderError of ApiSession */
  async #storeSmall(small: Buffer): Promise<void> {
    await this.#options.session.api.storeResource(this.#resource.folder, smallPartFile(this.#resource), small, NEVER);
  }

  /** A small part of the journal; undefined where there is none, or it was encrypted for another user. */
  decrypt(encrypted: string | undefined, sha256: string | undefined): Buffer | undefined {
    if (encrypted === undefined) return undefined;
    try {
      const small = this.#options.session.api.decrypt(Buffer.from(encrypted, 'base64'));
      return smallPartSha256(small) === sha256 ? small : undefined;
    } catch (error) {
      if (hasErrorCode(error, 'envelope_invalid')) return undefined;
      throw error;
    }
  }
}

function superseded(): LoaderError {
  return new LoaderError(
    'upload_superseded',
    'Another upload of this resource ended at the same time, and its version stands: upload again if yours should.',
  );
}

/**
 * Whether an object is that of an upload. A store that keeps no metadata is asked by the ETag.
 *
 * @throws LoaderError `cdn_version_unknown` when neither is there
 */
export function isOf(version: ObjectVersion, { smallSha256, parts }: PublicationRecord): boolean {
  if (version.smallSha256 !== undefined) return version.smallSha256 === smallSha256;
  if (version.etag !== undefined) return version.etag === multipartEtag(parts);
  throw new LoaderError('cdn_version_unknown', 'The CDN tells neither metadata nor a strong ETag of the big part.');
}
