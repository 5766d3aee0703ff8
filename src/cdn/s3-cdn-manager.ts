import { Readable } from 'node:stream';
import { GetObjectCommand, S3Client, type GetObjectCommandOutput, type S3ClientConfig } from '@aws-sdk/client-s3';
import { LoaderError } from '../errors.ts';
import { retry, RetryCounter } from '../async/retry.ts';
import { watchForStalls } from '../async/stall-watchdog.ts';
import type { AccessKeyPair, CdnConfig } from './cdn-config.ts';
import { isTransientCdnError, toCdnError } from './cdn-errors.ts';
import { S3Upload } from './s3-upload.ts';
import { UndiciHttpHandler } from './undici-http-handler.ts';

export interface S3CdnManagerOptions {
  /** How long the CDN may be silent, before the headers and within a body, in ms. */
  readonly stallTimeoutMs: number;
}

/** One version of an object: whoever reads a part of it reads that version, or fails with `cdn_object_changed`. */
export interface CdnObject {
  readonly bucket: string;
  readonly key: string;
  readonly etag: string;
  /** Bytes. */
  readonly length: number;
  /** Its last bytes, at most as many as were asked for. */
  readonly tail: Buffer;
}

/** For reading one range. The SDK's own retries know nothing of bodies, and are off for downloads. */
const RETRY_POLICY = { attempts: 5, baseDelayMs: 100, isRetryable: isTransientCdnError };
/** For a request of an upload: the SDK sends parts again by itself. */
const UPLOAD_ATTEMPTS = 3;
/** Connections to the CDN over all transfers; more wait their turn. */
const MAX_SOCKETS = 32;

/**
 * The big parts on an S3-compatible CDN: downloads with the downloader's keys, uploads with the uploader's.
 *
 * Construction does no I/O. A manager belongs to one login; those who started with it may finish with it.
 */
export class S3CdnManager {
  readonly #bucket: string | undefined;
  readonly #stallTimeoutMs: number;
  readonly #downloader: S3Client;
  readonly #uploader: S3Client;

  constructor(config: CdnConfig, options: S3CdnManagerOptions) {
    this.#bucket = config.bucket;
    this.#stallTimeoutMs = options.stallTimeoutMs;
    const { stallTimeoutMs } = options;
    this.#downloader = createClient(
      config,
      config.downloader,
      new UndiciHttpHandler({ timeoutMs: stallTimeoutMs, connections: MAX_SOCKETS }),
      1,
    );
    // The timeout of the agents also closes idle connections, so that those of an earlier login do not stay.
    const agent = { keepAlive: true, maxSockets: MAX_SOCKETS, timeout: stallTimeoutMs };
    this.#uploader = createClient(
      config,
      config.uploader,
      {
        connectionTimeout: stallTimeoutMs,
        // Silence while a part goes up, or before its answer.
        socketTimeout: stallTimeoutMs,
        httpAgent: agent,
        httpsAgent: agent,
      },
      UPLOAD_ATTEMPTS,
    );
  }

  /**
   * Finds an object and reads its last `tailLength` bytes, in one request (a suffix range, RFC 9110 section 14.1.2).
   *
   * @throws LoaderError `resource_not_in_cdn`, or any code that begins with `cdn_`.
   */
  async openObject(folder: string, fileName: string, tailLength: number, signal: AbortSignal): Promise<CdnObject> {
    const location = this.#locate(folder, fileName);
    return await retry(() => this.#openObject(location, tailLength, signal), RETRY_POLICY, signal);
  }

  async #openObject(
    { bucket, key }: { bucket: string; key: string },
    tailLength: number,
    signal: AbortSignal,
  ): Promise<CdnObject> {
    const answer = await this.#get({ Bucket: bucket, Key: key, Range: `bytes=-${tailLength}` }, signal);
    const body = bodyOf(answer);
    try {
      const range = parseContentRange(answer);
      if (range.end !== range.total - 1 || range.start !== Math.max(0, range.total - tailLength)) {
        throw invalidRange('its end');
      }
      if (answer.ETag === undefined) {
        throw new LoaderError(
          'cdn_invalid_response',
          'The CDN names no ETag, so that a changed object would go unseen.',
        );
      }
      const tail = await this.#readTail(body, range.total - range.start, signal);
      return { bucket, key, etag: answer.ETag, length: range.total, tail };
    } catch (error) {
      throw toCdnError(error, signal);
    } finally {
      body.destroy();
    }
  }

  /**
   * Yields the bytes from `start` to `end` (exclusive) of `object`.
   *
   * A connection that fails or goes silent is replaced by one that goes on at the present byte; `If-Match` and the
   * answer's Content-Range and ETag are checked each time.
   *
   * @throws LoaderError `cdn_object_changed`, or any other code that begins with `cdn_`.
   */
  async *readRange(
    object: CdnObject,
    start: number,
    end: number,
    signal: AbortSignal,
  ): AsyncGenerator<Buffer, void, undefined> {
    const attempts = new RetryCounter(RETRY_POLICY);
    let position = start;
    while (position < end) {
      try {
        const body = await this.#openRange(object, position, end, signal);
        for await (const chunk of watchForStalls(body, this.#stallWatchdog(signal))) {
          if (position + chunk.length > end) throw invalidRange('more bytes than asked for');
          position += chunk.length;
          yield chunk;
        }
        if (position < end) throw new LoaderError('cdn_unreachable', 'The CDN ended a body too early.');
      } catch (error) {
        await attempts.pauseOrThrow(toCdnError(error, signal), signal);
      }
    }
  }

  /** Begins a multipart upload, of which nothing is seen before its `complete`. */
  async startUpload(folder: string, fileName: string, signal: AbortSignal): Promise<S3Upload> {
    return await S3Upload.start(this.#uploader, this.#locate(folder, fileName), signal);
  }

  /** Closes the idle connections. Only for the end of the process: transfers that still run would fail. */
  close(): void {
    this.#downloader.destroy();
    this.#uploader.destroy();
  }

  #locate(folder: string, fileName: string): { bucket: string; key: string } {
    return this.#bucket === undefined
      ? { bucket: folder, key: fileName }
      : { bucket: this.#bucket, key: `${folder}/${fileName}` };
  }

  async #openRange(object: CdnObject, start: number, end: number, signal: AbortSignal): Promise<Readable> {
    const answer = await this.#get(
      { Bucket: object.bucket, Key: object.key, Range: `bytes=${start}-${end - 1}`, IfMatch: object.etag },
      signal,
    );
    const body = bodyOf(answer);
    try {
      if (answer.ETag !== object.etag) {
        throw new LoaderError(
          'cdn_object_changed',
          'The big part on the CDN was replaced while it was read; load again.',
        );
      }
      const range = parseContentRange(answer);
      if (range.start !== start || range.end !== end - 1 || range.total !== object.length) {
        throw invalidRange(`bytes ${start} to ${end - 1}`);
      }
      return body;
    } catch (error) {
      body.destroy();
      throw error;
    }
  }

  async #get(
    input: { Bucket: string; Key: string; Range: string; IfMatch?: string },
    signal: AbortSignal,
  ): Promise<GetObjectCommandOutput> {
    try {
      return await this.#downloader.send(new GetObjectCommand(input), { abortSignal: signal });
    } catch (error) {
      throw toCdnError(error, signal);
    }
  }

  async #readTail(body: Readable, length: number, signal: AbortSignal): Promise<Buffer> {
    const tail = Buffer.alloc(length);
    let filled = 0;
    for await (const chunk of watchForStalls(body, this.#stallWatchdog(signal))) {
      if (filled + chunk.length > length) throw invalidRange('more bytes than asked for');
      chunk.copy(tail, filled);
      filled += chunk.length;
    }
    if (filled < length) throw new LoaderError('cdn_unreachable', 'The CDN ended a body too early.');
    return tail;
  }

  #stallWatchdog(signal: AbortSignal) {
    return {
      timeoutMs: this.#stallTimeoutMs,
      stalled: () => new LoaderError('cdn_timeout', `The CDN sent nothing for ${this.#stallTimeoutMs} ms.`),
      signal,
    };
  }
}

type RequestHandler = NonNullable<S3ClientConfig['requestHandler']>;

function createClient(
  config: CdnConfig,
  keys: AccessKeyPair,
  requestHandler: RequestHandler,
  maxAttempts: number,
): S3Client {
  return new S3Client({
    endpoint: config.host,
    region: config.region,
    credentials: keys,
    forcePathStyle: true,
    // S3-compatible servers reject the streamed trailers that the SDK's own default sends.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler,
    maxAttempts,
  });
}

function bodyOf(answer: GetObjectCommandOutput): Readable {
  if (answer.Body instanceof Readable) return answer.Body;
  throw new LoaderError('cdn_invalid_response', 'The CDN answered without a body.');
}

/** RFC 9110 section 14.4. A server that ignores the range answers 200 without this header. */
function parseContentRange(answer: GetObjectCommandOutput): { start: number; end: number; total: number } {
  const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(answer.ContentRange ?? '');
  if (answer.$metadata.httpStatusCode !== 206 || match === null) {
    throw new LoaderError(
      'cdn_invalid_response',
      'The CDN does not answer range requests: 206 with a Content-Range is needed.',
    );
  }
  return { start: Number(match[1]), end: Number(match[2]), total: Number(match[3]) };
}

function invalidRange(asked: string): LoaderError {
  return new LoaderError('cdn_invalid_response', `The CDN answered another range than was asked for (${asked}).`);
}
