import type { ByteBudget, Share } from '../async/byte-budget.ts';
import { Changes } from '../async/changes.ts';
import type { S3Upload } from '../cdn/s3-upload.ts';
import { systemErrorCode, toError } from '../errors.ts';
import type { DraftFile } from '../files/draft-file.ts';
import { releaseChunk } from '../files/release-chunk.ts';
import type { Logger } from '../log/logger.ts';

/** Bytes of a part. S3 takes at most 10,000 parts, each but the last of at least 5 MiB: an upload has at most 78 GiB. */
export const PART_LENGTH = 8 * 1024 * 1024;
/** Parts that are sent at a time. Another one is being filled: an upload holds at most 40 MiB of them. */
const PARTS_IN_FLIGHT = 4;

export interface S3PartUploaderOptions {
  readonly logger: Logger;
  /** Of the bytes that all uploads and transfers hold together. */
  readonly memory: ByteBudget;
  /** Ends the wait for memory. */
  readonly signal: AbortSignal;
}

/**
 * Cuts a stream of bytes into the parts of an S3 upload, and writes each to a file as well. Parts are sent side by
 * side; `push` waits while enough of them are under way, or while other work holds the memory. The disposal waits until
 * none is under way any more.
 *
 * A part holds its share of the memory until it was sent. No wait for a further share keeps it from that, so uploads that
 * wait for each other's shares always go on.
 */
export class S3PartUploader implements AsyncDisposable {
  readonly #upload: Pick<S3Upload, 'sendPart'>;
  readonly #options: S3PartUploaderOptions;
  readonly #changes = new Changes();
  #file: Pick<DraftFile, 'write'> | undefined;
  #filling: PartBuffer | undefined;
  #filled = 0;
  #partNumber = 0;
  #inFlight = 0;
  #length = 0;
  #failure: Error | undefined;

  constructor(
    upload: Pick<S3Upload, 'sendPart'>,
    file: Pick<DraftFile, 'write'> | undefined,
    options: S3PartUploaderOptions,
  ) {
    this.#upload = upload;
    this.#file = file;
    this.#options = options;
  }

  /** Bytes that were pushed. */
  get length(): number {
    return this.#length;
  }

  /** Whether the file has all bytes that were sent. When the disk fails, the file is given up, not the upload. */
  get isFileComplete(): boolean {
    return this.#file !== undefined;
  }

  /** Takes a copy of the chunk. @throws the failure of an earlier part; the reason of the signal */
  async push(chunk: Buffer): Promise<void> {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#failure !== undefined) throw this.#failure;
      this.#filling ??= await PartBuffer.create(this.#options);
      const copied = rest.copy(this.#filling.bytes, this.#filled);
      this.#filled += copied;
      this.#length += copied;
      rest = rest.subarray(copied);
      if (this.#filled < PART_LENGTH) continue;
      this.#send(this.#filling);
      await this.#fewerThan(PARTS_IN_FLIGHT);
    }
  }

  /** Sends what is left and waits for all parts. @throws the first failure of a part */
  async end(): Promise<void> {
    if (this.#filling !== undefined) this.#send(this.#filling);
    await this.#fewerThan(1);
    if (this.#failure !== undefined) throw this.#failure;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#filling?.[Symbol.dispose]();
    this.#filling = undefined;
    await this.#fewerThan(1);
  }

  #send(buffer: PartBuffer): void {
    const part = { number: ++this.#partNumber, position: this.#length - this.#filled, length: this.#filled };
    this.#filling = undefined;
    this.#filled = 0;
    void this.#sendPart(buffer, part);
  }

  /** Never fails: the next `push` and `end` throw its failure. */
  async #sendPart(
    buffer: PartBuffer,
    { number, position, length }: { number: number; position: number; length: number },
  ): Promise<void> {
    using _buffer = buffer;
    const bytes = buffer.bytes.subarray(0, length);
    this.#inFlight++;
    // Both have settled before the part counts as done: the file may be closed after that.
    const [sent] = await Promise.allSettled([this.#upload.sendPart(number, bytes), this.#writeToFile(bytes, position)]);
    this.#inFlight--;
    if (sent.status === 'rejected') this.#failure ??= toError(sent.reason);
    this.#changes.announce();
  }

  /** Waits until fewer than `count` parts are under way. */
  async #fewerThan(count: number): Promise<void> {
    while (this.#inFlight >= count) await this.#changes.next;
  }

  /** Never fails: the file is given up instead. */
  async #writeToFile(bytes: Buffer, position: number): Promise<void> {
    try {
      await this.#file?.write(bytes, position);
    } catch (error) {
      this.#file = undefined;
      this.#options.logger.warn({ err: error, code: systemErrorCode(error) }, 'An upload goes on without the cache');
    }
  }
}

/** The memory of one part, within its share of the budget. Its disposal frees both at once. */
class PartBuffer implements Disposable {
  readonly bytes = Buffer.allocUnsafeSlow(PART_LENGTH);
  readonly #share: Share;

  private constructor(share: Share) {
    this.#share = share;
  }

  static async create({ memory, signal }: S3PartUploaderOptions): Promise<PartBuffer> {
    return new PartBuffer(await memory.acquire(PART_LENGTH, signal));
  }

  [Symbol.dispose](): void {
    releaseChunk(this.bytes);
    this.#share[Symbol.dispose]();
  }
}
