import { subtle } from 'node:crypto';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  UploadPartCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import { LoaderError } from '../errors.ts';
import { toCdnError } from './cdn-errors.ts';
import { NEVER } from '../async/abort.ts';

interface CompletedPart {
  readonly PartNumber: number;
  readonly ETag: string;
}

/** How long the removal of an unfinished upload may take, in ms. It happens even when the request was aborted. */
const ABORT_TIMEOUT_MS = 10_000;

/**
 * One S3 multipart upload. The earlier object stays until `complete` succeeds. Every other end needs `abort`, which
 * leaves no parts in the bucket.
 */
export class S3Upload {
  readonly #client: S3Client;
  readonly #target: { readonly Bucket: string; readonly Key: string; readonly UploadId: string };
  readonly #signal: AbortSignal;
  readonly #parts: CompletedPart[] = [];

  private constructor(
    client: S3Client,
    target: { readonly Bucket: string; readonly Key: string; readonly UploadId: string },
    signal: AbortSignal,
  ) {
    this.#client = client;
    this.#target = target;
    this.#signal = signal;
  }

  static async start(
    client: S3Client,
    location: { readonly bucket: string; readonly key: string },
    signal: AbortSignal,
  ): Promise<S3Upload> {
    const target = { Bucket: location.bucket, Key: location.key };
    try {
      // Without the signal: an upload whose ID we never got could not be removed.
      const answer = await client.send(new CreateMultipartUploadCommand(target));
      if (answer.UploadId === undefined) {
        throw new LoaderError('cdn_invalid_response', 'The CDN began an upload without an ID.');
      }
      const upload = new S3Upload(client, { ...target, UploadId: answer.UploadId }, signal);
      if (signal.aborted) await upload.abort();
      signal.throwIfAborted();
      return upload;
    } catch (error) {
      throw uploadError(error, signal);
    }
  }

  /** Sends part `partNumber`, from 1. The body must not change meanwhile: it is sent again after a failure. */
  async sendPart(partNumber: number, body: Buffer<ArrayBuffer>): Promise<void> {
    try {
      const command = new UploadPartCommand({ ...this.#target, PartNumber: partNumber, Body: body });
      await signPayload(command, body);
      const answer = await this.#client.send(command, { abortSignal: this.#signal });
      if (answer.ETag === undefined) {
        throw new LoaderError('cdn_invalid_response', 'The CDN took a part without naming its ETag.');
      }
      this.#parts.push({ PartNumber: partNumber, ETag: answer.ETag });
    } catch (error) {
      throw uploadError(error, this.#signal);
    }
  }

  /**
   * Makes the parts one object, in the place of an earlier one. All parts must have been sent. It can't be aborted: it
   * would then be unknown which of the two objects stands.
   */
  async complete(): Promise<void> {
    const parts = this.#parts.toSorted((a, b) => a.PartNumber - b.PartNumber);
    try {
      await this.#client.send(
        new CompleteMultipartUploadCommand({ ...this.#target, MultipartUpload: { Parts: parts } }),
      );
    } catch (error) {
      // Perhaps only the answer was lost. The abort decides: only this Loader ends the upload. If the upload is gone, it
      // became an object; if the abort succeeds, it never will.
      if ((await this.#abort().catch(() => 'unknown')) !== 'gone') throw uploadError(error, NEVER);
    }
  }

  /** Removes the parts that were sent. A part that is still under way could stay behind. */
  async abort(): Promise<void> {
    await this.#abort();
  }

  async #abort(): Promise<'aborted' | 'gone'> {
    const signal = AbortSignal.timeout(ABORT_TIMEOUT_MS);
    try {
      await this.#client.send(new AbortMultipartUploadCommand(this.#target), { abortSignal: signal });
      return 'aborted';
    } catch (error) {
      if (isNoSuchUpload(error)) return 'gone';
      throw uploadError(error, signal);
    }
  }
}

/**
 * Gives the signer the digest of the body, by which the server checks what it received. The SDK would compute it on the
 * main thread, and all other requests would wait meanwhile.
 */
async function signPayload(command: UploadPartCommand, body: Buffer<ArrayBuffer>): Promise<void> {
  const digest = Buffer.from(await subtle.digest('SHA-256', body));
  command.middlewareStack.add(
    (next) => async (args) => {
      const { request } = args as { request: { headers: Record<string, string> } };
      request.headers['x-amz-content-sha256'] = digest.toString('hex');
      return await next(args);
    },
    { step: 'build', name: 'payloadDigest' },
  );
}

/** Ceph calls an upload that has ended NoSuchKey. */
function isNoSuchUpload(error: unknown): boolean {
  return error instanceof Error && (error.name === 'NoSuchUpload' || error.name === 'NoSuchKey');
}

function uploadError(error: unknown, signal: AbortSignal): Error {
  const cdnError = toCdnError(error, signal);
  // For an upload, a 404 is a missing bucket, not a missing resource.
  return cdnError instanceof LoaderError && cdnError.code === 'resource_not_in_cdn'
    ? new LoaderError('cdn_error', 'The CDN has no such bucket or lost the upload.', { cause: cdnError.cause })
    : cdnError;
}
