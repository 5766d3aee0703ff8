import { Changes } from '../async/changes.ts';
import type { S3Upload } from '../cdn/s3-upload.ts';
import { systemErrorCode, toError } from '../errors.ts';
import type { DraftFile } from '../files/draft-file.ts';
import type { Logger } from '../log/logger.ts';
import type { Parallelism } from '../net/parallelism.ts';
import { FillingPart, type FillingPartOptions } from './filling-part.ts';

type PartsFile = Pick<DraftFile, 'handle' | 'startSync' | 'write'>;

export interface S3PartUploaderOptions extends FillingPartOptions {
  /** Of all uploads. */
  readonly parallelism: Parallelism;
  readonly logger: Logger;
}

/**
 * Cuts a stream of bytes into the parts of an S3 upload, and writes each to a file as well. Parts are sent side by
 * side; `push` waits while enough of them are under way, or while other work holds the memory. Another one is being
 * filled, so an upload holds 40 MiB of them, and at most 64 MiB. The disposal waits until none is under way any more.
 *
 * A part holds its share of the memory until it was sent. No wait for a further share keeps it from that, so uploads that
 * wait for each other's shares always go on.
 */
export class S3PartUploader implements AsyncDisposable {
  readonly #upload: Pick<S3Upload, 'sendPart'>;
  readonly #options: S3PartUploaderOptions;
  readonly #changes = new Changes();
  #file: PartsFile | undefined;
  #filling: FillingPart | undefined;
  #partNumber = 0;
  #inFlight = 0;
  #length = 0;
  #failure: Error | undefined;

  constructor(upload: Pick<S3Upload, 'sendPart'>, file: PartsFile | undefined, options: S3PartUploaderOptions) {
    this.#upload = upload;
    this.#file = file;
    this.#options = options;
    options.parallelism.begin();
  }

  /** Bytes that were pushed. */
  get length(): number {
    return this.#length;
  }

  /** Whether the file has all bytes that were sent. When the disk fails, the file is given up, not the upload. */
  get isFileComplete(): boolean {
    return this.#file !== undefined;
  }

  /** Takes a copy of the chunk. @throws the failure of an earlier part; as `FillingPart.push` */
  async push(chunk: Buffer): Promise<void> {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#failure !== undefined) throw this.#failure;
      this.#filling ??= new FillingPart({ file: this.#file, position: this.#length }, this.#options);
      const taken = await this.#filling.push(rest);
      this.#length += taken;
      rest = rest.subarray(taken);
      if (!this.#filling.isFull) continue;
      this.#send(this.#filling);
      await this.#fewerThan(this.#options.parallelism.count);
    }
  }

  /** Sends what is left, and waits until one part at most is under way. `end` must follow. */
  async sendRest(): Promise<void> {
    if (this.#filling !== undefined) this.#send(this.#filling);
    await this.#fewerThan(2);
  }

  /** Sends what is left and waits for all parts. @throws the first failure of a part */
  async end(): Promise<void> {
    await this.sendRest();
    await this.#fewerThan(1);
    if (this.#failure !== undefined) throw this.#failure;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#filling?.[Symbol.asyncDispose]();
    this.#filling = undefined;
    await this.#fewerThan(1);
  }

  #send(part: FillingPart): void {
    this.#filling = undefined;
    this.#inFlight++;
    void this.#sendPart(part, ++this.#partNumber);
  }

  /** Never fails: the next `push` and `end` throw its failure. */
  async #sendPart(part: FillingPart, number: number): Promise<void> {
    try {
      await using _part = part;
      const { bytes, sha256 } = await part.end();
      // Both have settled before the part counts as done: the file may be closed after that.
      const [sent] = await Promise.allSettled([
        this.#sendBytes(number, bytes, sha256),
        this.#writeToFile(bytes, part.position),
      ]);
      if (sent.status === 'rejected') throw toError(sent.reason);
    } catch (error) {
      this.#failure ??= toError(error);
    }
    this.#inFlight--;
    this.#changes.announce();
  }

  async #sendBytes(number: number, bytes: Buffer<ArrayBuffer>, sha256: string): Promise<void> {
    const startedAtMs = performance.now();
    await this.#upload.sendPart(number, bytes, sha256);
    this.#options.parallelism.finish(bytes.length, performance.now() - startedAtMs);
  }

  /** Waits until fewer than `count` parts are under way. */
  async #fewerThan(count: number): Promise<void> {
    while (this.#inFlight >= count) await this.#changes.next;
  }

  /** Never fails: the file is given up instead. */
  async #writeToFile(bytes: Buffer, position: number): Promise<void> {
    try {
      await this.#file?.write(bytes, position);
      this.#file?.startSync(); // The client waits for the disk at the end.
    } catch (error) {
      this.#file = undefined;
      this.#options.logger.warn({ err: error, code: systemErrorCode(error) }, 'An upload goes on without the cache');
    }
  }
}
