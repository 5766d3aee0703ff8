import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { LoaderError } from '../errors.ts';
import { NEVER } from '../async/abort.ts';
import { assertToken } from './answer-limits.ts';
import type { CdnClient } from './cdn-client.ts';
import type { ObjectLocation } from './object-reader.ts';

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

  /** Goes on with an upload that is under way: `parts` are those that the CDN has. */
  constructor(client: CdnClient, target: UploadTarget, parts: readonly SentPart[], signal: AbortSignal) {
    this.target = target;
    this.#client = client;
    this.#parts = [...parts];
    this.#signal = signal;
  }

  /** Begins an upload whose object will carry `metadata`. */
  static async start(
    client: CdnClient,
    { bucket, key }: ObjectLocation,
    metadata: Record<string, string>,
    signal: AbortSignal,
  ): Promise<S3Upload> {
    try {
      // Without the signal: an upload whose ID we never got could not be removed.
      const answer = await client.s3.send(
        new CreateMultipartUploadCommand({ Bucket: bucket, Key: key, Metadata: metadata }),
      );
      const uploadId = assertToken(answer.UploadId, 'the ID of an upload');
      const upload = new S3Upload(client, { bucket, key, uploadId }, [], signal);
      if (signal.aborted) await upload.abort();
      signal.throwIfAborted();
      return upload;
    } catch (error) {
      throw uploadError(client, error, signal);
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
    try {
      const command = new UploadPartCommand({ ...this.#input, PartNumber: partNumber, Body: body });
      signPayload(command, sha256);
      const answer = await this.#client.s3.send(command, { abortSignal: this.#signal });
      this.#parts.push({ number: partNumber, etag: assertToken(answer.ETag, 'the ETag of a part') });
    } catch (error) {
      throw uploadError(this.#client, error, this.#signal);
    }
  }

  /**
   * Makes the parts one object, in the place of an earlier one. All parts must have been sent. It can't be aborted: it
   * would then be unknown which of the two objects stands. After a failure that is unknown too: look at the object.
   */
  async complete(): Promise<void> {
    const parts = this.parts.map(({ number, etag }) => ({ PartNumber: number, ETag: etag }));
    try {
      const answer = await this.#client.s3.send(
        new CompleteMultipartUploadCommand({ ...this.#input, MultipartUpload: { Parts: parts } }),
      );
      // Ceph names an empty one.
      if (answer.ETag === undefined) {
        throw new LoaderError('cdn_invalid_response', 'The CDN completed an upload without naming its ETag.');
      }
    } catch (error) {
      throw uploadError(this.#client, error, NEVER);
    }
  }

  /**
   * Removes the parts that were sent. A part that is still under way could stay behind.
   *
   * @returns `gone` when the CDN has no such upload: it became an object, or was removed
   */
  async abort(): Promise<'aborted' | 'gone'> {
    const signal = AbortSignal.timeout(ABORT_TIMEOUT_MS);
    try {
      await this.#client.s3.send(new AbortMultipartUploadCommand(this.#input), { abortSignal: signal });
      return 'aborted';
    } catch (error) {
      if (isNoSuchUpload(error)) return 'gone';
      throw uploadError(this.#client, error, signal);
    }
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

/** Ceph calls an upload that has ended NoSuchKey. */
function isNoSuchUpload(error: unknown): boolean {
  return error instanceof Error && (error.name === 'NoSuchUpload' || error.name === 'NoSuchKey');
}

function uploadError({ errors }: CdnClient, error: unknown, signal: AbortSignal): Error {
  const cdnError = errors.of(error, signal);
  // For an upload, a 404 is a missing bucket, not a missing resource.
  return cdnError instanceof LoaderError && cdnError.code === 'resource_not_in_cdn'
    ? new LoaderError('cdn_error', 'The CDN has no such bucket or lost the upload.', { cause: cdnError.cause })
    : cdnError;
}
