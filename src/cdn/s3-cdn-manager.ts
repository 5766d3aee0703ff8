import { HeadObjectCommand } from '@aws-sdk/client-s3';
import type { Dispatcher } from 'undici';
import { NEVER } from '../async/abort.ts';
import { Outage, type Patience } from '../async/outage.ts';
import { hasErrorCode, PassingError, type LoaderError } from '../errors.ts';
import type { ServerClock } from '../net/server-clock.ts';
import { createCdnClient, type CdnClient } from './cdn-client.ts';
import type { CdnConfig } from './cdn-config.ts';
import { removeEmptyUploads } from './empty-uploads.ts';
import { ObjectReader, type CdnObject, type RangeReading } from './object-reader.ts';
import type { ObjectLocation } from './object-location.ts';
import { MANIFEST, SMALL_SHA256, versionOf, type ObjectVersion } from './object-version.ts';
import { S3Upload, type SentPart, type UploadStart, type UploadTarget } from './s3-upload.ts';
import { SmallObjects, type Precondition, type SmallObject } from './small-objects.ts';

export type { CdnObject, ObjectVersion, Precondition, SmallObject };

export interface S3CdnManagerOptions {
  /** How long a CDN that is silent or fails is waited for. */
  readonly patience: Patience;
  /** Whose connections downloads take, and whose uploads and looks. They outlive the manager. */
  readonly links: CdnLinks;
  /** The time that the CDN has, for signatures. */
  readonly clock: ServerClock;
}

export interface CdnLinks {
  readonly downloads: Dispatcher;
  readonly uploads: Dispatcher;
}

/**
 * The big parts on an S3-compatible CDN: downloads use the downloader's keys, uploads the uploader's.
 *
 * Construction does no I/O. A manager belongs to one login; transfers that began with it may finish with it.
 */
export class S3CdnManager {
  /** Of cdn.yaml, if it names one. */
  readonly bucket: string | undefined;
  /** With the keys of downloads. Most looks end an upload: a connection of its own would cost three round trips. */
  readonly #looker: CdnClient;
  readonly #uploader: CdnClient;
  readonly #clock: ServerClock;
  readonly #reader: ObjectReader;
  readonly #smallObjects: SmallObjects;

  constructor(config: CdnConfig, { patience, links, clock }: S3CdnManagerOptions) {
    this.bucket = config.bucket;
    this.#clock = clock;
    const shared = { host: config.host, region: config.region, patience, clock };
    // Each client gets the keys that it needs and no others.
    const downloader = {
      ...shared,
      keys: config.downloader,
      // Time is left for other connections, since a connection may be dead where the CDN is not.
      silenceMs: Math.ceil(patience.limitMs / 3),
    };
    this.#looker = createCdnClient({ ...downloader, dispatcher: links.uploads });
    this.#uploader = createCdnClient({
      ...shared,
      keys: config.uploader,
      dispatcher: links.uploads,
      // A CDN may take long to complete an upload, and a slow link long to take a part.
      silenceMs: patience.limitMs,
    });
    const reading = createCdnClient({ ...downloader, dispatcher: links.downloads });
    this.#reader = new ObjectReader(reading);
    this.#smallObjects = new SmallObjects({ downloader: reading, uploader: this.#uploader });
  }

  /**
   * Finds an object and reads its last `tailLength` bytes, in one request. A CDN that fails is waited for as `patience`
   * says; without one, as all requests do.
   *
   * @throws LoaderError `resource_not_in_cdn`, or any code that begins with `cdn_`; the reason of `signal`
   */
  async openObject(
    folder: string,
    name: string,
    tailLength: number,
    signal: AbortSignal,
    patience?: Patience,
  ): Promise<CdnObject> {
    return await this.#reader.open(this.#locate(folder, name), tailLength, signal, patience);
  }

  /**
   * Yields the bytes from `start` to `end` (exclusive) of `object`.
   *
   * A connection that fails or goes silent is replaced by one that goes on at the present byte. Each answer must be of the
   * same version and range.
   *
   * @throws LoaderError `cdn_object_changed`, or any other code that begins with `cdn_`; the reason of the signal
   */
  readRange(
    object: CdnObject,
    start: number,
    end: number,
    reading: RangeReading,
  ): AsyncGenerator<Buffer, void, undefined> {
    return this.#reader.readRange(object, start, end, reading);
  }

  /**
   * Finds an object without reading it; undefined when there is none.
   *
   * @throws LoaderError, any code that begins with `cdn_`; the reason of `signal`
   */
  async lookAt(folder: string, name: string, signal: AbortSignal): Promise<ObjectVersion | undefined> {
    const location = this.#locate(folder, name);
    const version = await this.#head(location, signal);
    if (version !== undefined) return version;
    try {
      return await this.#reader.open(location, 1, signal);
    } catch (error) {
      if (hasErrorCode(error, 'resource_not_in_cdn')) return undefined;
      throw error;
    }
  }

  /** Undefined when it is not found: an answer to HEAD has no body that tells whether the CDN says so or a gateway. */
  async #head({ bucket, key }: ObjectLocation, signal: AbortSignal): Promise<ObjectVersion | undefined> {
    const { s3, errors, patience } = this.#looker;
    const outage = new Outage(patience);
    for (;;) {
      try {
        const answer = await s3.send(new HeadObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal });
        if (answer.ContentLength === undefined) throw noLength();
        return versionOf(answer, answer.ContentLength);
      } catch (error) {
        const failure = errors.of(error, signal, { bucket, key });
        if (hasErrorCode(failure, 'resource_not_in_cdn')) return undefined;
        await outage.waitOrThrow(failure, signal);
      }
    }
  }

  /** Reads a small object whole; undefined when there is none. @throws as `SmallObjects.get` does */
  async getSmallObject(
    folder: string,
    name: string,
    maxLength: number,
    signal: AbortSignal,
    patience?: Patience,
  ): Promise<SmallObject | undefined> {
    return await this.#smallObjects.get(this.#locate(folder, name), maxLength, signal, patience);
  }

  /** Stores a small object. @throws as `SmallObjects.put` does */
  async putSmallObject(
    folder: string,
    name: string,
    bytes: Buffer,
    precondition: Precondition,
    signal: AbortSignal,
  ): Promise<'stored' | 'refused'> {
    return await this.#smallObjects.put(this.#locate(folder, name), bytes, precondition, signal);
  }

  /**
   * Begins a multipart upload of the big part that belongs to the small part with this SHA-256 (hex) and will get a
   * manifest. Nothing of it can be seen before its `complete`. The options are those of `S3Upload.start`.
   */
  async startUpload(folder: string, name: string, smallSha256: string, options: UploadStart): Promise<S3Upload> {
    const metadata = { [SMALL_SHA256]: smallSha256, [MANIFEST]: '1' };
    return await S3Upload.start(this.#uploader, this.#locate(folder, name), metadata, options);
  }

  /** Goes on with an upload that an earlier process began. */
  resumeUpload(target: UploadTarget, parts: readonly SentPart[]): S3Upload {
    return new S3Upload(this.#uploader, target, parts, NEVER);
  }

  /** Removes the uploads of an object that have no part. @throws as `removeEmptyUploads` in empty-uploads.ts does */
  async removeEmptyUploads(folder: string, name: string, startedAtMs: number): Promise<void> {
    const startedAtCdnMs = startedAtMs + (this.#clock.offsetMs ?? 0);
    await removeEmptyUploads(this.#uploader, this.#locate(folder, name), startedAtCdnMs);
  }

  /** Without a bucket in cdn.yaml, the folder's first segment is the bucket (docs/protocol.md section 6). */
  #locate(folder: string, name: string): ObjectLocation {
    if (this.bucket !== undefined) return { bucket: this.bucket, key: `${folder}/${name}` };
    const [bucket = '', ...rest] = folder.split('/');
    return { bucket, key: [...rest, name].join('/') };
  }
}

function noLength(): LoaderError {
  return new PassingError('cdn_invalid_response', 'The CDN did not tell the length of an object.', {
    isDoubtful: true,
  });
}
