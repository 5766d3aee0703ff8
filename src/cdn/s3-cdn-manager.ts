import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3';
import { NEVER } from '../async/abort.ts';
import type { AccessKeyPair, CdnConfig } from './cdn-config.ts';
import { removeEmptyUploads } from './empty-uploads.ts';
import {
  ObjectReader,
  SMALL_SHA256,
  type CdnObject,
  type ObjectLocation,
  type ObjectVersion,
} from './object-reader.ts';
import { S3Upload, type SentPart, type UploadTarget } from './s3-upload.ts';
import { UndiciHttpHandler } from './undici-http-handler.ts';

export type { CdnObject, ObjectVersion };

export interface S3CdnManagerOptions {
  /** How long the CDN may be silent, before the headers and within a body, in ms. */
  readonly stallTimeoutMs: number;
}

/** For a request of an upload: the SDK sends parts again by itself. */
const UPLOAD_ATTEMPTS = 3;
/** Connections to the CDN of all downloads, and as many of all uploads; further requests wait for a free one. */
const MAX_SOCKETS = 32;

/**
 * The big parts on an S3-compatible CDN: downloads use the downloader's keys, uploads the uploader's.
 *
 * Construction does no I/O. A manager belongs to one login; transfers that began with it may finish with it.
 */
export class S3CdnManager {
  readonly #bucket: string | undefined;
  readonly #downloader: S3Client;
  readonly #uploader: S3Client;
  readonly #reader: ObjectReader;

  constructor(config: CdnConfig, { stallTimeoutMs }: S3CdnManagerOptions) {
    this.#bucket = config.bucket;
    // Each client gets the keys that it needs and no others.
    this.#downloader = createClient(config, config.downloader, {
      requestHandler: new UndiciHttpHandler({ timeoutMs: stallTimeoutMs, connections: MAX_SOCKETS }),
      maxAttempts: 1,
    });
    this.#uploader = createClient(config, config.uploader, {
      requestHandler: new UndiciHttpHandler({ timeoutMs: stallTimeoutMs, connections: MAX_SOCKETS }),
      maxAttempts: UPLOAD_ATTEMPTS,
    });
    this.#reader = new ObjectReader(this.#downloader, stallTimeoutMs);
  }

  /**
   * Finds an object and reads its last `tailLength` bytes, in one request.
   *
   * @throws LoaderError `resource_not_in_cdn`, or any code that begins with `cdn_`; the reason of `signal`
   */
  async openObject(folder: string, name: string, tailLength: number, signal: AbortSignal): Promise<CdnObject> {
    return await this.#reader.open(this.#locate(folder, name), tailLength, signal);
  }

  /**
   * Yields the bytes from `start` to `end` (exclusive) of `object`.
   *
   * A connection that fails or goes silent is replaced by one that goes on at the present byte; `If-Match` and the
   * answer's Content-Range and ETag are checked each time.
   *
   * @throws LoaderError `cdn_object_changed`, or any other code that begins with `cdn_`; the reason of `signal`
   */
  readRange(
    object: CdnObject,
    start: number,
    end: number,
    signal: AbortSignal,
  ): AsyncGenerator<Buffer, void, undefined> {
    return this.#reader.readRange(object, start, end, signal);
  }

  /**
   * Finds an object without reading it; undefined when there is none.
   *
   * @throws LoaderError, any code that begins with `cdn_`; the reason of `signal`
   */
  async lookAt(folder: string, name: string, signal: AbortSignal): Promise<ObjectVersion | undefined> {
    return await this.#reader.lookAt(this.#locate(folder, name), signal);
  }

  /**
   * Begins a multipart upload of the big part that belongs to the small part with this SHA-256 (hex). Nothing of it can
   * be seen before its `complete`.
   */
  async startUpload(folder: string, name: string, smallSha256: string, signal: AbortSignal): Promise<S3Upload> {
    return await S3Upload.start(this.#uploader, this.#locate(folder, name), { [SMALL_SHA256]: smallSha256 }, signal);
  }

  /** Goes on with an upload that an earlier process began. */
  resumeUpload(target: UploadTarget, parts: readonly SentPart[]): S3Upload {
    return new S3Upload(this.#uploader, target, parts, NEVER);
  }

  /** Removes the uploads of an object that have no part. @throws as `removeEmptyUploads` in empty-uploads.ts does */
  async removeEmptyUploads(folder: string, name: string, startedAtMs: number): Promise<void> {
    await removeEmptyUploads(this.#uploader, this.#locate(folder, name), startedAtMs);
  }

  /** Closes all connections, for the end of the process: transfers that still run fail. */
  close(): void {
    this.#downloader.destroy();
    this.#uploader.destroy();
  }

  /** Without a bucket in cdn.yaml, the folder's first segment is the bucket (docs/protocol.md section 6). */
  #locate(folder: string, name: string): ObjectLocation {
    if (this.#bucket !== undefined) return { bucket: this.#bucket, key: `${folder}/${name}` };
    const [bucket = '', ...rest] = folder.split('/');
    return { bucket, key: [...rest, name].join('/') };
  }
}

function createClient(
  { host, region }: Pick<CdnConfig, 'host' | 'region'>,
  credentials: AccessKeyPair,
  options: Required<Pick<S3ClientConfig, 'requestHandler' | 'maxAttempts'>>,
): S3Client {
  return new S3Client({
    endpoint: host,
    region,
    credentials,
    forcePathStyle: true,
    // S3-compatible servers reject the streamed trailers that the SDK sends by default.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // Some servers and proxies never answer `Expect: 100-continue`, and undici does not send it.
    expectContinueHeader: false,
    ...options,
  });
}
