import { LoaderError } from '../errors.ts';

/** The small part of any envelope from `SMALL_PART_DECIDED_AT` bytes on. */
const MAX_SMALL_PART_LENGTH = 3072;
/** From this many bytes of envelope on, the small part is 3,072 bytes, however long the rest. */
const SMALL_PART_DECIDED_AT = 10_240;

/** Bytes of the part that goes to the Resource API; the rest is the big one (docs/protocol.md section 4). */
export function smallPartLength(envelopeLength: number): number {
  // In whole numbers, since 0.3 has no exact binary form.
  return Math.min(MAX_SMALL_PART_LENGTH, Math.floor((3 * envelopeLength) / 10));
}

/** Bytes of the whole envelope with these parts. @throws LoaderError `envelope_invalid` when they do not belong together. */
export function joinedLength(smallLength: number, bigLength: number): number {
  const length = smallLength + bigLength;
  if (smallLength !== smallPartLength(length)) {
    throw new LoaderError(
      'envelope_invalid',
      `The small part has ${smallLength} bytes and the big one ${bigLength}: they are not parts of one envelope.`,
    );
  }
  return length;
}

/**
 * Cuts an envelope of yet unknown length while it streams.
 *
 * Feed it with `push`, which answers the bytes that surely belong to the big part, and end with `end`. No more than
 * 10 KiB are held back.
 */
export class EnvelopeSplitter {
  #held: Buffer[] = [];
  #heldLength = 0;
  #small: Buffer | undefined;

  /** The next bytes of the big part; empty while it is not known where the small one ends. */
  push(chunk: Buffer): Buffer {
    if (this.#small !== undefined) return chunk;
    this.#held.push(chunk);
    this.#heldLength += chunk.length;
    return this.#heldLength >= SMALL_PART_DECIDED_AT ? this.#cut() : Buffer.alloc(0);
  }

  /** The last bytes of the big part, if they were held back until now. */
  end(): Buffer {
    return this.#small === undefined ? this.#cut() : Buffer.alloc(0);
  }

  /** The small part; known from `end` on. */
  get small(): Buffer {
    if (this.#small === undefined) throw new Error('EnvelopeSplitter.small was read before the end');
    return this.#small;
  }

  #cut(): Buffer {
    const envelope = Buffer.concat(this.#held);
    const smallLength = smallPartLength(envelope.length);
    // A copy, so that 3 KiB do not keep the whole chunk in memory.
    this.#small = Buffer.from(envelope.subarray(0, smallLength));
    this.#held = [];
    return envelope.subarray(smallLength);
  }
}
