import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import type { ByteBudget, Share } from '../async/byte-budget.ts';
import { StallTimer } from '../async/stall-timer.ts';
import type { ChunkDigests } from '../cache/copy-record.ts';
import { systemErrorCode, toError } from '../errors.ts';
import { EndOfFileError, readFully } from '../files/file-chunks.ts';
import { releaseChunk } from '../files/release-chunk.ts';
import { BLOCK_LENGTH } from '../security/envelope.ts';
import { decryptBlocks } from '../security/envelope-cipher.ts';
import type { ChunkPool, FileChunk } from './chunk-pool.ts';
import type { SmallPart } from './envelope-parts.ts';

/** A big part in a file, chunk by chunk. */
export interface ChunkFile {
  /** It stays open as long as anyone reads. */
  readonly handle: FileHandle;
  /** Bytes of the whole big part. */
  readonly length: number;
  /** Undefined where no digests are known: nothing is verified then. */
  readonly chunks: ChunkDigests | undefined;
  /** Waits until the bytes before `position` are in the file, which is still being written. */
  reach?(position: number): Promise<void>;
  /** Whether the bytes before `position` are in the file already. */
  isThere?(position: number): boolean;
  /**
   * Gets the bytes of a chunk that is damaged or missing in the file, and writes them back.
   *
   * @throws LoaderError when they can't be had
   */
  mend(index: number, reason: Error): Promise<Buffer>;
}

/** A range of a plaintext, in bytes. */
export interface PlaintextRange {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

export interface PlaintextReaderOptions {
  readonly pool: ChunkPool;
  /** Of the plaintexts that wait for their readers, of all loads together. */
  readonly budget: ByteBudget;
  readonly signal: AbortSignal;
  /** How long a reader may be busy with one piece before the memory goes to others who wait for it, in ms. */
  readonly readerPatienceMs?: number;
}

/** Bytes that are read at a time where there are no digests: the first ones leave earlier than those of a chunk. */
const UNVERIFIED_LENGTH = 512 * 1024;
/** Bytes that are handed on at a time. */
const PIECE_LENGTH = 128 * 1024;
const READER_PATIENCE_MS = 2_000;
/** Errors of a disk that has lost a block: the chunk is fetched again, as one that is damaged. */
const LOST: readonly string[] = ['EIO'];

/**
 * Reads a range of a resource's plaintext from the file of its big part. Chunks are read, verified and decrypted side by
 * side in the pool, and leave in their order. No byte of a chunk leaves before the digest of that chunk was right; nor does
 * one whose decryption needs the end of the chunk before, unless that was right too.
 *
 * It holds the plaintext of a few chunks. A reader who is slow gives them back while others wait, and has the chunk
 * decrypted once more when he goes on.
 */
export class PlaintextReader {
  readonly #file: ChunkFile;
  readonly #small: SmallPart;
  readonly #options: PlaintextReaderOptions;
  readonly #unit: number;

  constructor(file: ChunkFile, small: SmallPart, options: PlaintextReaderOptions) {
    this.#file = file;
    this.#small = small;
    this.#options = options;
    this.#unit = file.chunks?.chunkLength ?? UNVERIFIED_LENGTH;
  }

  /** Yields a range. The pieces belong to the consumer. @throws LoaderError of `ChunkFile`; the reason of the signal */
  async *read({ start, end }: PlaintextRange): AsyncGenerator<Buffer, void, undefined> {
    if (start >= end) return;
    if (!this.#small.isAligned) {
      yield (await this.#readShort()).subarray(start, end);
      return;
    }
    const head = this.#small.plaintext();
    await using rest = this.#readBig(Math.max(0, start - head.length), end - head.length);
    // Nothing leaves before the first chunk was right: a failure can still be told then.
    const first = await rest.next();
    if (start < head.length) yield Buffer.from(head.subarray(start, end));
    if (first.done === true) return;
    yield first.value;
    yield* rest;
  }

  /** Positions are those in the big part: its stored bytes and their plaintext have the same. */
  async *#readBig(start: number, end: number): AsyncGenerator<Buffer, void, undefined> {
    if (start >= end) return;
    const unit = this.#unit;
    const first = Math.floor(start / unit);
    const last = Math.ceil(end / unit) - 1;
    let previous: Buffer | undefined;
    if (first === 0) previous = this.#small.lastBlock;
    else if (start - first * unit < BLOCK_LENGTH) previous = await this.#lastBlockOf(first - 1);
    const turns: Turn[] = [];
    try {
      for (let index = first, next = first; index <= last; index++) {
        // Only a turn that has its memory at once lets others begin before they are due: none of them may keep it from it.
        let isRich = turns[0]?.isBegun ?? true;
        while (next <= last && turns.length <= this.#options.pool.size && isRich) {
          const begun = next;
          const share = this.#tryAcquire(begun);
          isRich = share !== undefined;
          if (!isRich && turns.length > 0) break;
          const begin = (known: Buffer | undefined, later: Share | undefined) => this.#begin(begun, known, later);
          turns.push(new Turn(begin, begun === index ? previous : undefined, share));
          next++;
        }
        const [turn] = turns;
        if (turn === undefined) throw new Error('no chunk was begun');
        const offset = index * unit;
        yield* this.#hand(turns, previous, { start: Math.max(0, start - offset), end: Math.min(end - offset, unit) });
        previous = turn.lastBlock;
        turns.shift();
      }
    } finally {
      // The caller may close the file after this.
      await Promise.all(turns.map((turn) => turn.giveBack()));
    }
  }

  /** Memory for a chunk; undefined where there is none at once, or the chunk is not there yet. */
  #tryAcquire(index: number): Share | undefined {
    const { position, length } = this.#placeOf(index);
    const isThere = this.#file.isThere?.(position + length) ?? true;
    return isThere ? this.#options.budget.tryAcquire(this.#unit) : undefined;
  }

  /** Yields a range of the first turn. Meanwhile, a slow reader gives back what all turns hold. */
  async *#hand(
    turns: readonly Turn[],
    previous: Buffer | undefined,
    { start, end }: PlaintextRange,
  ): AsyncGenerator<Buffer, void, undefined> {
    const [turn] = turns as [Turn];
    const { budget, readerPatienceMs = READER_PATIENCE_MS } = this.#options;
    using timer = new StallTimer(readerPatienceMs, () => {
      if (budget.waiting > 0) for (const held of turns) void held.giveBack();
      timer.pause();
      timer.resume();
    });
    timer.pause();
    for (let position = start; position < end; position += PIECE_LENGTH) {
      const plaintext = await turn.plaintext(previous);
      const piece = Buffer.from(plaintext.subarray(position, Math.min(end, position + PIECE_LENGTH)));
      timer.resume();
      yield piece;
      timer.pause();
    }
    await turn.giveBack();
  }

  /** Verifies and decrypts one chunk, once its bytes are there and it has memory. */
  async #begin(index: number, known: Buffer | undefined, share?: Share): Promise<DecryptedChunk> {
    const { signal, budget, pool } = this.#options;
    const place = this.#placeOf(index);
    using owned = new DisposableStack();
    if (share === undefined) {
      await this.#file.reach?.(place.position + place.length);
      owned.use(await budget.acquire(this.#unit, signal));
    } else {
      owned.use(share);
    }
    const { chunks } = this.#file;
    const { aesKey, lastBlock } = this.#small;
    const previousBlock = index === 0 ? lastBlock : known;
    let reason: Error;
    try {
      const plaintext = new ArrayBuffer(place.length);
      const chunk = await pool.decrypt(place, { wantsDigest: chunks !== undefined, aesKey, previousBlock, plaintext });
      const bytes = owned.adopt(Buffer.from(chunk.plaintext), releaseChunk);
      if (chunks === undefined || chunk.sha256 === chunks.chunkSha256[index]) {
        return new DecryptedChunk(bytes, chunk.previousBlock, chunk.lastBlock, owned.move());
      }
      reason = new Error(`chunk ${index} is damaged`);
    } catch (error) {
      if (chunks === undefined || !isLost(error)) throw error;
      reason = toError(error);
    }
    const stored = await this.#file.mend(index, reason);
    const before = previousBlock ?? (await this.#blockBefore(place.position));
    const bytes = decryptBlocks(stored, aesKey, before);
    return new DecryptedChunk(bytes, before, Buffer.from(stored.subarray(-BLOCK_LENGTH)), owned.move());
  }

  /** The last stored block of a chunk that is right. */
  async #lastBlockOf(index: number): Promise<Buffer> {
    using chunk = await this.#begin(index, undefined);
    return chunk.lastBlock;
  }

  /** It is compared with the end of the chunk before when that is known to be right. One that is lost never is. */
  async #blockBefore(position: number): Promise<Buffer> {
    const block = Buffer.alloc(BLOCK_LENGTH);
    try {
      return await readFully(this.#file.handle, block, position - BLOCK_LENGTH, position);
    } catch (error) {
      if (isLost(error)) return block;
      throw error;
    }
  }

  #placeOf(index: number): FileChunk {
    const position = index * this.#unit;
    return { fd: this.#file.handle.fd, position, length: Math.min(this.#unit, this.#file.length - position) };
  }

  /** The plaintext of an envelope so short that its parts are not cut between two blocks. */
  async #readShort(): Promise<Buffer> {
    const { handle, length, chunks } = this.#file;
    await this.#file.reach?.(length);
    let stored: Buffer;
    try {
      stored = await readFully(handle, Buffer.alloc(length), 0, length);
      if (chunks !== undefined && length > 0 && sha256(stored) !== chunks.chunkSha256[0]) {
        stored = await this.#file.mend(0, new Error('chunk 0 is damaged'));
      }
    } catch (error) {
      if (chunks === undefined || !isLost(error)) throw error;
      stored = await this.#file.mend(0, toError(error));
    }
    return this.#small.decryptWith(stored);
  }
}

/** A chunk whose digest was right, where it has one. Its disposal gives its memory back. */
class DecryptedChunk implements Disposable {
  readonly plaintext: Buffer;
  /** Its last stored block. */
  readonly lastBlock: Buffer;
  readonly #owned: DisposableStack;
  #previousBlock: Buffer;

  constructor(plaintext: Buffer, previousBlock: Buffer, lastBlock: Buffer, owned: DisposableStack) {
    this.plaintext = plaintext;
    this.#previousBlock = previousBlock;
    this.lastBlock = lastBlock;
    this.#owned = owned;
  }

  /** Makes its first block what it is after this stored block: CBC only adds the two (XOR). */
  decryptAfter(previousBlock: Buffer): void {
    if (this.#previousBlock.equals(previousBlock)) return;
    for (const [index, byte] of this.plaintext.subarray(0, BLOCK_LENGTH).entries()) {
      this.plaintext[index] = byte ^ (this.#previousBlock[index] ?? 0) ^ (previousBlock[index] ?? 0);
    }
    this.#previousBlock = previousBlock;
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

type BeginChunk = (previousBlock: Buffer | undefined, share: Share | undefined) => Promise<DecryptedChunk>;

/** One chunk on its way. It may begin before the chunks before it have left, and anew after its memory was given back. */
class Turn {
  readonly #begin: BeginChunk;
  #chunk: Promise<DecryptedChunk> | undefined;
  #lastBlock: Buffer | undefined;

  /** `share` is memory that was taken for it; without one, it waits for its own. */
  constructor(begin: BeginChunk, known: Buffer | undefined, share: Share | undefined) {
    this.#begin = begin;
    this.#chunk = this.#start(known, share);
  }

  /** Whether it has its memory, or waits for it. */
  get isBegun(): boolean {
    return this.#chunk !== undefined;
  }

  /** Of the stored bytes, once the plaintext was there. */
  get lastBlock(): Buffer | undefined {
    return this.#lastBlock;
  }

  /** Valid until `giveBack`. `previous` is the last stored block of the chunk before, where that was read and right. */
  async plaintext(previous: Buffer | undefined): Promise<Buffer> {
    this.#chunk ??= this.#start(previous);
    const chunk = await this.#chunk;
    // The chunk before may have been mended since, or the file have changed between the two reads.
    if (previous !== undefined) chunk.decryptAfter(previous);
    this.#lastBlock = chunk.lastBlock;
    return chunk.plaintext;
  }

  /** Ends when nothing reads the file any more. */
  async giveBack(): Promise<void> {
    const chunk = this.#chunk;
    this.#chunk = undefined;
    (await chunk?.catch(() => undefined))?.[Symbol.dispose]();
  }

  #start(known: Buffer | undefined, share?: Share): Promise<DecryptedChunk> {
    const chunk = this.#begin(known, share);
    chunk.catch(() => undefined); // It is thrown where the plaintext is asked for.
    return chunk;
  }
}

function isLost(error: unknown): boolean {
  return error instanceof EndOfFileError || LOST.includes(systemErrorCode(error) ?? '');
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
