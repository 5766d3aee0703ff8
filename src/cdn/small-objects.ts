import { GetObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import { Readable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { Outage, type Patience } from '../async/outage.ts';
import { watchForStalls } from '../async/stall-watchdog.ts';
import { hasErrorCode, LoaderError } from '../errors.ts';
import type { CdnClient } from './cdn-client.ts';
import { httpStatus } from './cdn-errors.ts';
import type { ObjectLocation } from './object-location.ts';

/** A small object, read whole. */
export interface SmallObject {
  readonly bytes: Buffer;
  /** As the CDN gave it, weak or strong; for the condition of `put`. */
  readonly etag: string | undefined;
}

export interface SmallObjectsOptions {
  readonly downloader: CdnClient;
  readonly uploader: CdnClient;
}

/** What must stand where an object is to be stored: one with this ETag (any, where the CDN tells none), or nothing. */
export type Precondition = { readonly etag: string | undefined } | 'absent';

/** Objects that are read and stored in one piece, such as manifests. */
export class SmallObjects {
  readonly #downloader: CdnClient;
  readonly #uploader: CdnClient;
  /** Whether the store knows conditional writes, as far as it is known. */
  #isConditional = true;

  constructor({ downloader, uploader }: SmallObjectsOptions) {
    this.#downloader = downloader;
    this.#uploader = uploader;
  }

  /**
   * Reads an object of at most `maxLength` bytes; undefined when there is none. Of a longer one, it reads one byte more:
   * the caller must refuse that.
   *
   * @throws LoaderError, any code that begins with `cdn_`; the reason of `signal`
   */
  async get(
    location: ObjectLocation,
    maxLength: number,
    signal: AbortSignal,
    patience: Patience = this.#downloader.patience,
  ): Promise<SmallObject | undefined> {
    const outage = new Outage(patience);
    for (;;) {
      try {
        return await this.#get(location, maxLength, signal);
      } catch (error) {
        const failure = this.#downloader.errors.of(error, signal, location);
        if (hasErrorCode(failure, 'resource_not_in_cdn')) return undefined;
        await outage.waitOrThrow(failure, signal);
      }
    }
  }

  async #get({ bucket, key }: ObjectLocation, maxLength: number, signal: AbortSignal): Promise<SmallObject> {
    const { s3, silenceMs, errors } = this.#downloader;
    const answer = await s3.send(new GetObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal });
    if (!(answer.Body instanceof Readable))
      throw new LoaderError('cdn_invalid_response', 'The CDN answered without a body.');
    const body = answer.Body;
    const chunks: Buffer[] = [];
    let length = 0;
    try {
      const stalls = { timeoutMs: silenceMs, stalled: () => errors.silent(silenceMs), signal };
      for await (const chunk of watchForStalls(body, stalls)) {
        chunks.push(chunk);
        length += chunk.length;
        if (length > maxLength) break;
      }
      await setImmediate(); // undici has the connection free a turn after the body's end.
    } finally {
      body.destroy();
    }
    return { bytes: Buffer.concat(chunks).subarray(0, maxLength + 1), etag: answer.ETag };
  }

  /**
   * Stores an object, if what stands there is as `precondition` says. A store that knows no conditions stores it in any
   * case. After a lost answer the object may stand although `refused` is returned.
   *
   * @throws LoaderError, any code that begins with `cdn_`; the reason of `signal`
   */
  async put(
    location: ObjectLocation,
    bytes: Buffer,
    precondition: Precondition,
    signal: AbortSignal,
  ): Promise<'stored' | 'refused'> {
    const condition = this.#isConditional ? conditionOf(precondition) : {};
    const answer = await this.#tryPut(location, bytes, condition, signal);
    if (answer === 'unknown') {
      this.#isConditional = false;
      return await this.put(location, bytes, precondition, signal);
    }
    if (answer === 'stored' || condition.IfMatch === undefined) return answer;
    // Ceph compares with the ETag as it stores it: without the quotation marks.
    const bare = { IfMatch: condition.IfMatch.replaceAll('"', '') };
    return (await this.#tryPut(location, bytes, bare, signal)) === 'stored' ? 'stored' : 'refused';
  }

  async #tryPut(
    { bucket, key }: ObjectLocation,
    bytes: Buffer,
    condition: Condition,
    signal: AbortSignal,
  ): Promise<'stored' | 'refused' | 'unknown'> {
    const { s3, errors, patience } = this.#uploader;
    const command = new PutObjectCommand({
      Bucket: bucket,
      Key: key,
      Body: bytes,
      ContentType: 'application/vnd.dsse+json',
      // It is replaced under its name, and an outdated one would be refused by devices.
      CacheControl: 'no-cache',
      ...condition,
    });
    const outage = new Outage(patience);
    for (;;) {
      try {
        await s3.send(command, { abortSignal: signal });
        return 'stored';
      } catch (error) {
        const status = httpStatus(error);
        if (status === 409 || status === 412) return 'refused';
        if (status === 501 && Object.keys(condition).length > 0) return 'unknown';
        await outage.waitOrThrow(errors.of(error, signal, { bucket, key }), signal);
      }
    }
  }
}

interface Condition {
  readonly IfMatch?: string;
  readonly IfNoneMatch?: string;
}

function conditionOf(precondition: Precondition): Condition {
  if (precondition === 'absent') return { IfNoneMatch: '*' };
  return precondition.etag === undefined ? {} : { IfMatch: precondition.etag };
}
