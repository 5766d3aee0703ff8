import { createHash } from 'node:crypto';
import type { Share } from '../async/byte-budget.ts';
import { passes } from '../async/pause.ts';
import { toCutFileError } from '../cache/cache-error.ts';
import type { DraftFile } from '../files/draft-file.ts';
import { readFully } from '../files/file-chunks.ts';
import type { PooledBuffer } from '../files/slab-pool.ts';
import type { WorkMemory } from '../files/work-memory.ts';

/** Bytes of a part. S3 takes at most 10,000 parts, each but the last of at least 5 MiB: an upload has at most 78 GiB. */
export const PART_LENGTH = 8 * 1024 * 1024;
/** How long a part may be filled while other work waits for its memory, in ms; at most twice as long, as it is looked at. */
const TURN_MS = 10_000;

export interface FillingPartOptions {
  readonly memory: WorkMemory;
  /** Ends the wait for memory. */
  readonly signal: AbortSignal;
  readonly turnMs?: number;
  readonly partLength?: number;
}

/** Where a part belongs in the file of its upload; undefined where the disk failed. */
export interface PartFile {
  readonly file: Pick<DraftFile, 'handle' | 'write'> | undefined;
  readonly position: number;
}

/**
 * A part of an upload, and its memory within the budget.
 *
 * A client that sends slowly must not keep the memory from others. While they wait for it, a part that was not filled
 * within its turn goes to the file, and its memory back to the budget. For its next bytes it waits for memory like any
 * other, and is read from the file. Without a file it keeps its memory.
 */
export class FillingPart implements AsyncDisposable {
  readonly #options: FillingPartOptions;
  readonly #place: PartFile;
  readonly #hash = createHash('sha256');
  #length = 0;
  #held: HeldBuffer | undefined;
  #turns: AbortController | undefined;
  #settingAside: Promise<void> | undefined;

  constructor(place: PartFile, options: FillingPartOptions) {
    this.#place = place;
    this.#options = options;
  }

  get #partLength(): number {
    return this.#options.partLength ?? PART_LENGTH;
  }

  /** Of its first byte, in the whole upload. */
  get position(): number {
    return this.#place.position;
  }

  get isFull(): boolean {
    return this.#length === this.#partLength;
  }

  /** Takes a copy of as many bytes as there is room for. Returns their number. @throws as `bytes` */
  async push(chunk: Buffer): Promise<number> {
    const held = await this.#hold();
    const copied = chunk.copy(held.bytes, this.#length);
    this.#hash.update(chunk.subarray(0, copied));
    this.#length += copied;
    return copied;
  }

  /**
   * What was pushed, and its SHA-256 in hex, for once. The bytes are valid until the disposal.
   *
   * @throws LoaderError `cache_unusable` when they can't be read back; the reason of the signal
   */
  async end(): Promise<{ bytes: Buffer<ArrayBuffer>; sha256: string }> {
    const held = await this.#hold();
    this.#turns?.abort();
    return { bytes: held.bytes.subarray(0, this.#length), sha256: this.#hash.digest('hex') };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#settingAside;
    this.#giveBack();
  }

  async #hold(): Promise<HeldBuffer> {
    await this.#settingAside;
    this.#held ??= await this.#begin();
    return this.#held;
  }

  async #begin(): Promise<HeldBuffer> {
    const { memory, signal } = this.#options;
    const held = await HeldBuffer.acquire(memory, this.#partLength, signal);
    try {
      const { file, position } = this.#place;
      if (file !== undefined) await readFully(file.handle, held.bytes, position, position + this.#length);
    } catch (error) {
      held[Symbol.dispose]();
      throw toCutFileError(error);
    }
    this.#turns = new AbortController();
    void this.#takeTurns(held, this.#turns.signal);
    return held;
  }

  /** Ends when the part is full or gives its memory back. */
  async #takeTurns({ bytes }: HeldBuffer, signal: AbortSignal): Promise<void> {
    const { memory, turnMs = TURN_MS } = this.#options;
    const { file, position } = this.#place;
    while (file !== undefined && (await passes(turnMs, signal))) {
      if (!memory.isWanted) continue;
      this.#settingAside = this.#setAside(file, bytes.subarray(0, this.#length), position);
      await this.#settingAside;
    }
  }

  /** Never fails: the memory is kept where the file can't be written. */
  async #setAside(file: Pick<DraftFile, 'write'>, bytes: Buffer, position: number): Promise<void> {
    try {
      await file.write(bytes, position);
      this.#giveBack();
    } catch {
      // The same fault comes again when the whole part is written, and is reported then.
    } finally {
      this.#settingAside = undefined;
    }
  }

  #giveBack(): void {
    this.#turns?.abort();
    this.#held?.[Symbol.dispose]();
    this.#held = undefined;
  }
}

/** A buffer for one part, within its share of the budget. */
class HeldBuffer implements Disposable {
  readonly #share: Share;
  readonly #buffer: PooledBuffer;

  private constructor(share: Share, buffer: PooledBuffer) {
    this.#share = share;
    this.#buffer = buffer;
  }

  static async acquire(memory: WorkMemory, length: number, signal: AbortSignal): Promise<HeldBuffer> {
    return new HeldBuffer(await memory.acquire(length, signal), memory.take(length));
  }

  get bytes(): Buffer<ArrayBuffer> {
    return this.#buffer.bytes;
  }

  [Symbol.dispose](): void {
    this.#buffer[Symbol.dispose]();
    this.#share[Symbol.dispose]();
  }
}
