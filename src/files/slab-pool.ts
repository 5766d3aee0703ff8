import { releaseChunk } from './release-chunk.ts';

const MIB = 1024 * 1024;
/**
 * Bytes of a slab of large buffers. glibc's malloc keeps freed memory of up to 32 MiB for later, between pieces that are
 * still in use; what is larger goes back to the system at once.
 */
const LARGE_SLAB_LENGTH = 40 * MIB;
/**
 * The same for buffers of less than 1 MiB. V8 collects its whole heap again and again while the memory outside of it grows
 * by 64 MiB: two large slabs in a cold load made ten collections, which took half of its CPU time.
 */
const SMALL_SLAB_LENGTH = 8 * MIB;

/** A buffer of a pool. Its disposal gives the buffer back, and no code may use the bytes after it; a second one does nothing. */
export interface PooledBuffer extends Disposable {
  readonly bytes: Buffer<ArrayBuffer>;
}

/**
 * Buffers of one length, many of which are cut from one slab of memory. A slab goes back to the system when none of its
 * buffers is in use. The first free buffer is taken, so the memory that was ever written to is that of the most buffers
 * that were in use together.
 *
 * It is ours since buffers that are made and freed one by one leave holes in the heap of malloc: 200 MiB of them took
 * 350 MiB, of which 250 MiB never came back.
 */
export class SlabPool {
  readonly #bufferLength: number;
  readonly #slabs = new Set<Slab>();

  constructor(bufferLength: number) {
    this.#bufferLength = bufferLength;
  }

  /** Bytes of all slabs. */
  get length(): number {
    return this.#slabs.size * slabLengthOf(this.#bufferLength);
  }

  take(): PooledBuffer {
    const slab = this.#slabs.values().find(({ free }) => free !== -1) ?? this.#addSlab();
    const index = slab.free;
    const bytes = slab.take(index);
    let isTaken = true;
    return {
      bytes,
      [Symbol.dispose]: () => {
        if (!isTaken) return;
        isTaken = false;
        slab.giveBack(index);
        if (slab.isUsed) return;
        this.#slabs.delete(slab);
        slab.release();
      },
    };
  }

  #addSlab(): Slab {
    const slab = new Slab(this.#bufferLength);
    this.#slabs.add(slab);
    return slab;
  }
}

function slabLengthOf(bufferLength: number): number {
  return bufferLength < MIB ? SMALL_SLAB_LENGTH : LARGE_SLAB_LENGTH;
}

class Slab {
  readonly #memory: Buffer<ArrayBuffer>;
  readonly #bufferLength: number;
  readonly #used: boolean[];

  constructor(bufferLength: number) {
    this.#memory = Buffer.allocUnsafeSlow(slabLengthOf(bufferLength));
    this.#bufferLength = bufferLength;
    this.#used = new Array<boolean>(Math.floor(this.#memory.length / bufferLength)).fill(false);
  }

  /** The index of the first free buffer; -1 when there is none. */
  get free(): number {
    return this.#used.indexOf(false);
  }

  get isUsed(): boolean {
    return this.#used.includes(true);
  }

  take(index: number): Buffer<ArrayBuffer> {
    this.#used[index] = true;
    return this.#memory.subarray(index * this.#bufferLength, (index + 1) * this.#bufferLength);
  }

  giveBack(index: number): void {
    this.#used[index] = false;
  }

  release(): void {
    releaseChunk(this.#memory);
  }
}
