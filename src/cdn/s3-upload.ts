import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { NEVER } from '../async/abort.ts';
import { Outage } from '../async/outage.ts';
import { hasErrorCode, LoaderError } from '../errors.ts';
import { assertToken } from './answer-limits.ts';
import type { CdnClient } from './cdn-client.ts';
import type { ObjectLocation } from './object-location.ts';

/** Which upload it is, for a process that goes on with it or removes it. */
export interface UploadTarget {
  readonly bucket: string;
  readonly key: string;
  readonly uploadId: string;
}

/** A part that the CDN has. */
export interface SentPart {
  /** From 1. */
  readonly number: number;
  readonly etag: string;
}

export interface UploadStart {
  readonly signal: AbortSignal;
  readonly onRepeat?: (failure: LoaderError) => void;
}

/** How long the removal of an unfinished upload may take, in ms. It happens even when the request was aborted. */
const ABORT_TIMEOUT_MS = 10_000;

/**
 * One S3 multipart upload. The earlier object stays until `complete` succeeds. Every other end needs `abort`, which
 * leaves no parts in the bucket.
 */
export class S3Upload {
  readonly target: UploadTarget;
  readonly #client: CdnClient;
  readonly #signal: AbortSignal;
  readonly #parts: SentPart[];
  readonly #outage: Outage;

  /** Goes on with an upload that is under way: `parts` are those that the CDN has. */
  constructor(client: CdnClient, target: UploadTarget, parts: readonly SentPart[], signal: AbortSignal) {
    this.target = target;
    this.#client = client;
    this.#parts = [...parts];
    this.#signal = signal;
    this.#outage = new Outage(client.patience);
  }

  /**
   * Begins an upload whose object will carry `metadata`. `onRepeat` is called before the CDN is asked once more, with the
   * failure: an upload whose ID was lost may be left then.
   */
  static async start(
    client: CdnClient,
    { bucket, key }: ObjectLocation,
    metadata: Record<string, string>,
    { signal, onRepeat }: UploadStart,
  ): Promise<S3Upload> {
    try {
      // Without the signal: an upload whose ID we never got could not be removed.
      const command = new CreateMultipartUploadCommand({ Bucket: bucket, Key: key, Metadata: metadata });
      const outage = new Outage({ ...client.patience, onWait: (failure) => failure && onRepeat?.(failure) });
      const answer = await patiently(client, { bucket, key }, outage, signal, () => client.s3.send(command));
      const uploadId = assertToken(answer.UploadId, 'the ID of an upload');
      const upload = new S3Upload(client, { bucket, key, uploadId }, [], signal);
      if (signal.aborted) await upload.abort();
      signal.throwIfAborted();
      return upload;
    } catch (error) {
      throw client.errors.of(error, signal, { bucket, key });
    }
  }

  /** The parts that the CDN has, in the order of their numbers. */
  get parts(): readonly SentPart[] {
    return this.#parts.toSorted((a, b) => a.number - b.number);
  }

  /**
   * Sends part `partNumber`, from 1, whose SHA-256 the caller knows, in hex. The body must not change meanwhile: it is sent
   * again after a failure.
   */
  async sendPart(partNumber: number, body: Buffer<ArrayBuffer>, sha256: string): Promise<void> {
    const command = new UploadPartCommand({ ...this.#input, PartNumber: partNumber, Body: body });
    signPayload(command, sha256);
    const answer = await patiently(this.#client, this.target, this.#outage, this.#signal, () =>
      this.#client.s3.send(command, { abortSignal: this.#signal }),
    );
    // A proxy that compresses may make it weak, and S3 takes it back as it gave it only.
    const etag = answer.ETag?.replace(/^W\//, '');
    this.#parts.push({ number: partNumber, etag: assertToken(etag, 'the ETag of a part') });
  }

  /**
   * Makes the parts one object, in the place of an earlier one. All parts must have been sent. It can't be aborted: it
   * would then be unknown which of the two objects stands. After a failure that is unknown too: look at the object.
   */
  async complete(): Promise<void> {
    const parts = this.parts.map(({ number, etag }) => ({ PartNumber: number, ETag: etag }));
    const command = new CompleteMultipartUploadCommand({ ...this.#input, MultipartUpload: { Parts: parts } });
    const answer = await patiently(this.#client, this.target, this.#outage, NEVER, () => this.#client.s3.send(command));
    // Ceph names an empty one.
    if (answer.ETag !== undefined) return;
    throw new LoaderError('cdn_invalid_response', 'The CDN completed an upload without naming its ETag.');
  }

  /**
   * Removes the parts that were sent. A part that is still under way could stay behind.
   *
   * @returns `gone` when the CDN has no such upload: it became an object, or was removed
   */
  async abort(): Promise<'aborted' | 'gone'> {
    const signal = AbortSignal.timeout(ABORT_TIMEOUT_MS);
    const command = new AbortMultipartUploadCommand(this.#input);
    try {
      const answer = await patiently(this.#client, this.target, new Outage(this.#client.patience), signal, () =>
        this.#client.s3.send(command, { abortSignal: signal }),
      );
      if (answer.$metadata.httpStatusCode === 204) return 'aborted';
    } catch (error) {
      if (hasErrorCode(error, 'cdn_upload_lost')) return 'gone';
      throw error;
    }
    throw new LoaderError('cdn_invalid_response', 'The CDN answered the removal of an upload with no 204.');
  }

  get #input() {
    const { bucket, key, uploadId } = this.target;
    return { Bucket: bucket, Key: key, UploadId: uploadId };
  }
}

/**
 * Gives the signer the digest of the body, by which the server checks what it received. The SDK would compute it in one go,
 * and all other requests would wait meanwhile; node:crypto would copy the whole body for a thread of its own.
 */
function signPayload(command: UploadPartCommand, sha256: string): void {
  command.middlewareStack.add(
    (next) => async (args) => {
      const { request } = args as { request: { headers: Record<string, string> } };
      request.headers['x-amz-content-sha256'] = sha256;
      return await next(args);
    },
    { step: 'build', name: 'payloadDigest' },
  );
}

/**
 * Sends a request of an upload until it is answered, as long as the outage lets it. To repeat one is safe: a part
 * replaces itself, and an upload that has ended is no more.
 *
 * @throws LoaderError `cdn_upload_lost`, or any other code that begins with `cdn_`; the reason of `signal`
 */
async function patiently<T>(
  { errors }: CdnClient,
  location: ObjectLocation,
  outage: Outage,
  signal: AbortSignal,
  send: () => Promise<T>,
): Promise<T> {
  for (;;) {
    try {
      const answer = await send();
      outage.progress();
      return answer;
    } catch (error) {
      const failure = uploadError(errors.of(error, signal, location));
      // A part may have taken long before it failed, and was taken all that time.
      if (outage.ageMs === 0) outage.progress();
      await outage.waitOrThrow(failure, signal);
    }
  }
}

/** For an upload, a 404 is a lost upload, not a missing resource. Ceph calls that NoSuchKey too. */
function uploadError(error: Error): Error {
  if (!hasErrorCode(error, 'resource_not_in_cdn')) return error;
  return new LoaderError('cdn_upload_lost', 'The CDN has no such upload any more: upload again.', {
    cause: error.cause,
  });
}
