import { Readable } from 'node:stream';
import { GetObjectCommand, HeadObjectCommand, type GetObjectCommandOutput } from '@aws-sdk/client-s3';
import { RetryCounter } from '../async/retry.ts';
import { watchForStalls } from '../async/stall-watchdog.ts';
import { hasErrorCode, LoaderError } from '../errors.ts';
import { assertObjectLength, assertToken } from './answer-limits.ts';
import type { CdnClient } from './cdn-client.ts';
import { isTransientCdnError, objectChanged } from './cdn-errors.ts';

/** Where an object lies. */
export interface ObjectLocation {
  readonly bucket: string;
  readonly key: string;
}

/** What an object is like, without its bytes. */
export interface ObjectVersion {
  readonly etag: string;
  /** Bytes. */
  readonly length: number;
  /**
   * SHA-256, hex, of the small part to which a big part belongs; undefined for an object of an older Loader
   * (docs/protocol.md section 6).
   */
  readonly smallSha256: string | undefined;
}

/** One version of an object. To read from another version fails with `cdn_object_changed`. */
export interface CdnObject extends ObjectLocation, ObjectVersion {
  /** Its last bytes, at most as many as were asked for. */
  readonly tail: Buffer;
}

/** What RFC 9110 section 14.4 calls a content range; both ends are inclusive. */
interface ContentRange {
  readonly start: number;
  readonly end: number;
  readonly total: number;
}

/** The metadata of a big part that names its small part (docs/protocol.md section 6). */
export const SMALL_SHA256 = 'small-sha256';

/** For reading one range. The SDK's own retries know nothing of bodies, so the client must not make any. */
const RETRY_POLICY = { attempts: 5, baseDelayMs: 100, isRetryable: isTransientCdnError };

/** Reads objects in ranges, each of which resumes at the byte where a connection failed or went silent. */
export class ObjectReader {
  readonly #client: CdnClient;
  readonly #stallTimeoutMs: number;

  constructor(client: CdnClient, stallTimeoutMs: number) {
    this.#client = client;
    this.#stallTimeoutMs = stallTimeoutMs;
  }

  /** Finds an object and reads its last `tailLength` bytes. @throws as `S3CdnManager.openObject` does */
  async open(location: ObjectLocation, tailLength: number, signal: AbortSignal): Promise<CdnObject> {
    const attempts = new RetryCounter(RETRY_POLICY);
    for (;;) {
      try {
        return await this.#open(location, tailLength, signal);
      } catch (error) {
        await attempts.pauseOrThrow(error, signal);
      }
    }
  }

  async #open({ bucket, key }: ObjectLocation, tailLength: number, signal: AbortSignal): Promise<CdnObject> {
    // A suffix range: RFC 9110 section 14.1.2.
    const answer = await this.#get({ Bucket: bucket, Key: key, Range: `bytes=-${tailLength}` }, signal);
    const body = bodyOf(answer);
    try {
      const range = contentRangeOf(answer);
      if (range.end !== range.total - 1 || range.start !== Math.max(0, range.total - tailLength)) {
        throw wrongRange('its end');
      }
      const version = versionOf(answer, range.total);
      return { bucket, key, ...version, tail: await this.#readTail(body, range.total - range.start, signal) };
    } catch (error) {
      throw this.#client.errors.of(error, signal);
    } finally {
      body.destroy();
    }
  }

  /** Finds an object without reading it; undefined when there is none. @throws as `S3CdnManager.lookAt` does */
  async lookAt({ bucket, key }: ObjectLocation, signal: AbortSignal): Promise<ObjectVersion | undefined> {
    const command = new HeadObjectCommand({ Bucket: bucket, Key: key });
    const attempts = new RetryCounter(RETRY_POLICY);
    for (;;) {
      try {
        return await this.#head(command, signal);
      } catch (error) {
        if (hasErrorCode(error, 'resource_not_in_cdn')) return undefined;
        await attempts.pauseOrThrow(error, signal);
      }
    }
  }

  async #head(command: HeadObjectCommand, signal: AbortSignal): Promise<ObjectVersion> {
    try {
      const answer = await this.#client.s3.send(command, { abortSignal: signal });
      return versionOf(answer, answer.ContentLength);
    } catch (error) {
      throw this.#client.errors.of(error, signal);
    }
  }

  /** Yields the bytes from `start` to `end` (exclusive) of `object`. @throws as `S3CdnManager.readRange` does */
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
        for await (const chunk of watchForStalls(body, this.#stallOptions(signal))) {
          if (position + chunk.length > end) throw wrongRange('more bytes than asked for');
          position += chunk.length;
          yield chunk;
        }
        if (position < end) throw endedEarly();
      } catch (error) {
        await attempts.pauseOrThrow(this.#client.errors.of(error, signal), signal);
      }
    }
  }

  async #openRange(object: CdnObject, start: number, end: number, signal: AbortSignal): Promise<Readable> {
    const answer = await this.#get(
      { Bucket: object.bucket, Key: object.key, Range: `bytes=${start}-${end - 1}`, IfMatch: object.etag },
      signal,
    );
    const body = bodyOf(answer);
    try {
      if (answer.ETag !== object.etag) throw objectChanged();
      const range = contentRangeOf(answer);
      if (range.start !== start || range.end !== end - 1 || range.total !== object.length) {
        throw wrongRange(`bytes ${start} to ${end - 1}`);
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
      return await this.#client.s3.send(new GetObjectCommand(input), { abortSignal: signal });
    } catch (error) {
      throw this.#client.errors.of(error, signal);
    }
  }

  async #readTail(body: Readable, length: number, signal: AbortSignal): Promise<Buffer> {
    const tail = Buffer.alloc(length);
    let filled = 0;
    for await (const chunk of watchForStalls(body, this.#stallOptions(signal))) {
      if (filled + chunk.length > length) throw wrongRange('more bytes than asked for');
      chunk.copy(tail, filled);
      filled += chunk.length;
    }
    if (filled < length) throw endedEarly();
    return tail;
  }

  #stallOptions(signal: AbortSignal) {
    return {
      timeoutMs: this.#stallTimeoutMs,
      stalled: () => new LoaderError('cdn_timeout', `The CDN sent nothing for ${this.#stallTimeoutMs} ms.`),
      signal,
    };
  }
}

function bodyOf(answer: GetObjectCommandOutput): Readable {
  if (answer.Body instanceof Readable) return answer.Body;
  throw new LoaderError('cdn_invalid_response', 'The CDN answered without a body.');
}

/** @throws LoaderError `cdn_invalid_response` when the answer can't tell one version from another */
function versionOf(
  { ETag: etag, Metadata: metadata }: Pick<GetObjectCommandOutput, 'ETag' | 'Metadata'>,
  length: number | undefined,
): ObjectVersion {
  if (etag === undefined || length === undefined) {
    throw new LoaderError(
      'cdn_invalid_response',
      'The CDN names no ETag; without one, a changed object would go unseen.',
    );
  }
  assertToken(etag, 'an ETag');
  assertObjectLength(length);
  return { etag, length, smallSha256: metadata?.[SMALL_SHA256] };
}

/** A server that ignores the range answers 200 without this header. */
function contentRangeOf(answer: GetObjectCommandOutput): ContentRange {
  const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(answer.ContentRange ?? '');
  if (answer.$metadata.httpStatusCode !== 206 || match === null) {
    throw new LoaderError(
      'cdn_invalid_response',
      'The CDN does not answer range requests: 206 with a Content-Range is needed.',
    );
  }
  return { start: Number(match[1]), end: Number(match[2]), total: Number(match[3]) };
}

function wrongRange(asked: string): LoaderError {
  return new LoaderError('cdn_invalid_response', `The CDN answered another range than was asked for (${asked}).`);
}

function endedEarly(): LoaderError {
  return new LoaderError('cdn_unreachable', 'The CDN ended a body too early.');
}
