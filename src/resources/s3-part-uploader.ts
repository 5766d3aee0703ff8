import type { DraftFile } from '../files/draft-file.ts';
import type { S3Upload } from '../cdn/s3-upload.ts';
import { systemErrorCode, toError } from '../errors.ts';
import type { Logger } from '../logger.ts';

/** Bytes of a part. S3 takes 10,000 of them, each but the last of at least 5 MiB: so 78 GiB fit. */
export const PART_LENGTH = 8 * 1024 * 1024;
/** Parts on their way at a time. One more is being filled: an upload holds at most 40 MiB of them. */
const PARTS_IN_FLIGHT = 4;

/**
 * Cuts a stream of bytes into the parts of an S3 upload, and writes each to a file as well. Parts are sent side by
 * side; `push` waits while enough of them are on their way.
 */
export class S3PartUploader {
  readonly #upload: S3Upload;
  readonly #logger: Logger;
  #file: DraftFile | undefined;
  readonly #freeBuffers: Buffer<ArrayBuffer>[] = [];
  readonly #inFlight = new Set<Promise<void>>();
  #filling: Buffer<ArrayBuffer> | undefined;
  #filled = 0;
  #partNumber = 0;
  #length = 0;
  #failure: Error | undefined;

  constructor(upload: S3Upload, file: DraftFile | undefined, logger: Logger) {
    this.#upload = upload;
    this.#file = file;
    this.#logger = logger;
  }

  /** Bytes that were pushed. */
  get length(): number {
    return this.#length;
  }

  /** Whether all bytes so far are in the file too: it is given up, not the upload, when the disk fails. */
  get isFileComplete(): boolean {
    return this.#file !== undefined;
  }

  async push(chunk: Buffer): Promise<void> {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#failure !== undefined) throw this.#failure;
      this.#filling ??= this.#freeBuffers.pop() ?? Buffer.allocUnsafeSlow(PART_LENGTH);
      const copied = rest.copy(this.#filling, this.#filled);
      this.#filled += copied;
      this.#length += copied;
      rest = rest.subarray(copied);
      if (this.#filled === PART_LENGTH) await this.#send();
    }
  }

  /** Sends what is left and waits for all parts. */
  async end(): Promise<void> {
    if (this.#filled > 0) await this.#send();
    await this.settle();
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Waits until nothing is on its way any more, whether it succeeded or not. */
  async settle(): Promise<void> {
    await Promise.all(this.#inFlight);
  }

  async #send(): Promise<void> {
    const buffer = this.#filling;
    if (buffer === undefined) return;
    const part = buffer.subarray(0, this.#filled);
    const position = this.#length - this.#filled;
    const partNumber = ++this.#partNumber;
    this.#filling = undefined;
    this.#filled = 0;
    const sending = Promise.all([this.#upload.sendPart(partNumber, part), this.#writeToFile(part, position)]).then(
      () => {
        this.#freeBuffers.push(buffer);
      },
      (error: unknown) => {
        this.#failure ??= toError(error);
      },
    );
    this.#inFlight.add(sending);
    void sending.then(() => this.#inFlight.delete(sending));
    if (this.#inFlight.size >= PARTS_IN_FLIGHT) await Promise.race(this.#inFlight);
  }

  async #writeToFile(part: Buffer, position: number): Promise<void> {
    try {
      await this.#file?.write(part, position);
    } catch (error) {
      this.#file = undefined;
      this.#logger.warn({ err: error, code: systemErrorCode(error) }, 'An upload goes on without the cache');
    }
  }
}
