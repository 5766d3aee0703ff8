import { Readable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { GetObjectCommand, type GetObjectCommandOutput } from '@aws-sdk/client-s3';
import { Outage } from '../async/outage.ts';
import { watchForStalls } from '../async/stall-watchdog.ts';
import { hasErrorCode, LoaderError, PassingError } from '../errors.ts';
import type { CdnClient } from './cdn-client.ts';
import { objectChanged } from './cdn-errors.ts';
import type { ObjectLocation } from './object-location.ts';
import { isSameVersion, versionOf, type ObjectVersion } from './object-version.ts';
import { ForeignAnswerError } from './undici-http-handler.ts';

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

/** How a range is read. */
export interface RangeReading {
  readonly signal: AbortSignal;
  /** Of all ranges of one transfer: a failure is waited out as long as it says. */
  readonly outage: Outage;
}

/** Reads objects in ranges, each of which resumes at the byte where a connection failed or went silent. */
export class ObjectReader {
  readonly #client: CdnClient;

  constructor(client: CdnClient) {
    this.#client = client;
  }

  /** Finds an object and reads its last `tailLength` bytes. @throws as `S3CdnManager.openObject` does */
  async open(
    location: ObjectLocation,
    tailLength: number,
    signal: AbortSignal,
    patience = this.#client.patience,
  ): Promise<CdnObject> {
    const outage = new Outage(patience);
    for (;;) {
      try {
        return await this.#open(location, tailLength, signal);
      } catch (error) {
        await outage.waitOrThrow(error, signal);
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
      throw this.#client.errors.of(error, signal, { bucket, key });
    } finally {
      body.destroy();
    }
  }

  /** Yields the bytes from `start` to `end` (exclusive) of `object`. @throws as `S3CdnManager.readRange` does */
  async *readRange(
    object: CdnObject,
    start: number,
    end: number,
    { signal, outage }: RangeReading,
  ): AsyncGenerator<Buffer, void, undefined> {
    let position = start;
    let condition = object.etag === undefined ? {} : { IfMatch: object.etag };
    while (position < end) {
      try {
        const body = await this.#openRange(object, { start: position, end, condition }, signal);
        for await (const chunk of watchForStalls(body, this.#stallOptions(signal))) {
          if (position + chunk.length > end) throw wrongRange('more bytes than asked for');
          position += chunk.length;
          outage.progress();
          yield chunk;
          outage.progress(); // The consumer may have been busy for long.
        }
        if (position < end) throw endedEarly();
        // undici has the connection free a turn after the body's end. A range that came sooner would make another one.
        await setImmediate();
      } catch (error) {
        const failure = this.#client.errors.of(error, signal, object);
        if (condition.IfMatch !== undefined && hasErrorCode(failure, 'cdn_object_changed')) {
          condition = {}; // Another edge may have another ETag of the same version. The answer itself tells then.
        } else {
          await outage.waitOrThrow(failure, signal);
        }
      }
    }
  }

  async #openRange(
    object: CdnObject,
    { start, end, condition }: { start: number; end: number; condition: { IfMatch?: string } },
    signal: AbortSignal,
  ): Promise<Readable> {
    const Range = `bytes=${start}-${end - 1}`;
    const answer = await this.#get({ Bucket: object.bucket, Key: object.key, Range, ...condition }, signal);
    const body = bodyOf(answer);
    try {
      const range = contentRangeOf(answer);
      if (!isSameVersion(object, versionOf(answer, range.total))) throw objectChanged();
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
      throw this.#client.errors.of(error, signal, { bucket: input.Bucket, key: input.Key });
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
    await setImmediate(); // As after a range.
    return tail;
  }

  #stallOptions(signal: AbortSignal) {
    return {
      timeoutMs: this.#client.silenceMs,
      stalled: () => this.#client.errors.silent(this.#client.silenceMs),
      signal,
    };
  }
}

function bodyOf(answer: GetObjectCommandOutput): Readable {
  if (answer.Body instanceof Readable) return answer.Body;
  throw new LoaderError('cdn_invalid_response', 'The CDN answered without a body.');
}

/** A server that ignores the range answers 200 without this header, and so does a gateway with a page of its own. */
function contentRangeOf(answer: GetObjectCommandOutput): ContentRange {
  if (answer.ContentRange === undefined && answer.ContentType?.startsWith('text/html') === true) {
    throw new ForeignAnswerError(answer.$metadata.httpStatusCode ?? 0, { 'content-type': answer.ContentType });
  }
  const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(answer.ContentRange ?? '');
  if (answer.$metadata.httpStatusCode !== 206 || match === null) {
    throw new PassingError(
      'cdn_invalid_response',
      'The CDN does not answer range requests: 206 with a Content-Range is needed.',
      { isDoubtful: true },
    );
  }
  return { start: Number(match[1]), end: Number(match[2]), total: Number(match[3]) };
}

function wrongRange(asked: string): LoaderError {
  const message = `The CDN answered another range than was asked for (${asked}).`;
  return new PassingError('cdn_invalid_response', message, { isDoubtful: true });
}

function endedEarly(): LoaderError {
  return new PassingError('cdn_unreachable', 'The CDN ended a body too early.');
}
