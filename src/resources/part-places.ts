import { createHash } from 'node:crypto';
import { NEVER } from '../async/abort.ts';
import type { ObjectVersion, S3CdnManager } from '../cdn/s3-cdn-manager.ts';
import type { SentPart } from '../cdn/s3-upload.ts';
import { hasErrorCode, LoaderError } from '../errors.ts';
import { bigPartFile, smallPartFile, type ResourceName } from '../resource-name.ts';
import type { Session } from '../upstream/upstream.ts';
import { smallPartSha256 } from './envelope-parts.ts';
import type { PublicationRecord } from './upload-journal.ts';

export interface PartPlacesSession {
  readonly api: Pick<Session['api'], 'decrypt' | 'fetchResource' | 'storeResource'>;
  readonly cdn: Pick<S3CdnManager, 'lookAt'>;
}

/** The two places at which the parts of one resource stand: the Resource API and the CDN. */
export class PartPlaces {
  readonly #resource: ResourceName;
  readonly #session: PartPlacesSession;

  constructor(resource: ResourceName, session: PartPlacesSession) {
    this.#resource = resource;
    this.#session = session;
  }

  /** The object that stands on the CDN; undefined when there is none. @throws as `S3CdnManager.lookAt` does */
  async lookAtObject(): Promise<ObjectVersion | undefined> {
    return await this.#session.cdn.lookAt(this.#resource.folder, bigPartFile(this.#resource), NEVER);
  }

  /** Whether the object that stands on the CDN is that of an upload. @throws as `lookAtObject` does */
  async hasObjectOf(publication: PublicationRecord): Promise<boolean> {
    const version = await this.lookAtObject();
    return version !== undefined && isOf(version, publication);
  }

  /**
   * The small part that stands at the API; undefined when there is none, or one that can't be read.
   *
   * @throws LoaderError of ApiSession
   */
  async fetchSmall(): Promise<Buffer | undefined> {
    try {
      return await this.#session.api.fetchResource(this.#resource.folder, smallPartFile(this.#resource), NEVER);
    } catch (error) {
      if (hasErrorCode(error, 'resource_not_in_api', 'envelope_invalid')) return undefined;
      throw error;
    }
  }

  /** @throws LoaderError of ApiSession */
  async storeSmall(small: Buffer): Promise<void> {
    await this.#session.api.storeResource(this.#resource.folder, smallPartFile(this.#resource), small, NEVER);
  }

  /** A small part of the journal; undefined where there is none, or it was encrypted for another user. */
  decrypt(encrypted: string | undefined, sha256: string | undefined): Buffer | undefined {
    if (encrypted === undefined) return undefined;
    try {
      const small = this.#session.api.decrypt(Buffer.from(encrypted, 'base64'));
      return smallPartSha256(small) === sha256 ? small : undefined;
    } catch (error) {
      if (hasErrorCode(error, 'envelope_invalid')) return undefined;
      throw error;
    }
  }
}

/**
 * Whether an object is that of an upload. A store that keeps no metadata is asked by the ETag.
 *
 * @throws LoaderError `cdn_version_unknown` when neither is there
 */
export function isOf(version: ObjectVersion, { smallSha256, parts }: PublicationRecord): boolean {
  if (version.smallSha256 !== undefined) return version.smallSha256 === smallSha256;
  if (version.etag !== undefined) return version.etag === etagOf(parts);
  throw new LoaderError('cdn_version_unknown', 'The CDN tells neither metadata nor a strong ETag of the big part.');
}

/** The ETag that S3 gives an object of these parts: the MD5 of their MD5s, and their number. */
function etagOf(parts: readonly SentPart[]): string {
  const hash = createHash('md5');
  for (const { etag } of parts) hash.update(Buffer.from(etag.replaceAll('"', ''), 'hex'));
  return `"${hash.digest('hex')}-${parts.length}"`;
}
