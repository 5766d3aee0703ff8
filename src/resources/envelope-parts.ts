import { createHash } from 'node:crypto';
import { LoaderError } from '../errors.ts';
import { BLOCK_LENGTH, PREFLIGHT_LENGTH, preflightEnvelope } from '../security/envelope.ts';
import { decryptBlocks, decryptBuffer } from '../security/envelope-cipher.ts';

/** Bytes of the small part of every envelope that has at least `SMALL_PART_DECIDED_AT` bytes. */
const MAX_SMALL_PART_LENGTH = 3072;
/** The first length from which on the small part has 3,072 bytes, however long the envelope is. */
const SMALL_PART_DECIDED_AT = 10_240;

/** Bytes of the part that goes to the Resource API; the big part is the rest (docs/protocol.md section 4). */
export function smallPartLength(envelopeLength: number): number {
  // Whole numbers, because 0.3 has no exact binary form.
  return Math.min(MAX_SMALL_PART_LENGTH, Math.floor((3 * envelopeLength) / 10));
}

/** Bytes of the whole envelope with these parts. @throws LoaderError `envelope_invalid` when they do not belong together */
export function joinedLength(smallLength: number, bigLength: number): number {
  const length = smallLength + bigLength;
  if (smallLength !== smallPartLength(length)) {
    throw new LoaderError(
      'envelope_invalid',
      `The small part has ${smallLength} bytes and the big part ${bigLength}: they are not parts of one envelope.`,
    );
  }
  return length;
}

/** SHA-256, hex, of a small part: it tells one version of a resource from another, since each envelope has a random IV. */
export function smallPartSha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The end of a big part. */
export interface BigPartEnd {
  /** Bytes of the whole big part. */
  readonly length: number;
  /** Its last bytes: as many as the preflight needs, or all there are. */
  readonly tail: Buffer;
}

/** The small part of a resource's envelope, and the key of the whole: what proves a big part and reads it. */
export class SmallPart {
  /** Hex. */
  readonly sha256: string;
  readonly #bytes: Buffer;
  readonly #aesKey: Buffer;

  constructor(bytes: Buffer, aesKey: Buffer) {
    this.sha256 = smallPartSha256(bytes);
    this.#bytes = bytes;
    this.#aesKey = aesKey;
  }

  /**
   * Bytes of the plaintext. The end of the envelope proves that both parts belong together and that the key is right.
   *
   * @throws LoaderError `envelope_invalid` when they do not, or it is not
   */
  plaintextLength(big: BigPartEnd): number {
    const envelopeLength = joinedLength(this.#bytes.length, big.length);
    const end = Buffer.concat([this.#bytes, big.tail]).subarray(-PREFLIGHT_LENGTH);
    try {
      return preflightEnvelope(envelopeLength, end, this.#aesKey);
    } catch (error) {
      throw undecryptable(error);
    }
  }

  get length(): number {
    return this.#bytes.length;
  }

  get aesKey(): Buffer {
    return this.#aesKey;
  }

  /** Whether the parts are cut between two blocks. Only those of an envelope of less than 10 KiB may not be. */
  get isAligned(): boolean {
    return this.#bytes.length >= 2 * BLOCK_LENGTH && this.#bytes.length % BLOCK_LENGTH === 0;
  }

  /** The stored block before the first one of the big part. It must be aligned. */
  get lastBlock(): Buffer {
    return this.#bytes.subarray(-BLOCK_LENGTH);
  }

  /** The beginning of the plaintext. It must be aligned. */
  plaintext(): Buffer {
    const iv = this.#bytes.subarray(0, BLOCK_LENGTH);
    return decryptBlocks(this.#bytes.subarray(BLOCK_LENGTH), this.#aesKey, iv);
  }

  /** The whole plaintext of a short envelope. @throws LoaderError `envelope_invalid` */
  decryptWith(big: Buffer): Buffer {
    return decryptBuffer(Buffer.concat([this.#bytes, big]), this.#aesKey);
  }
}

/** For an envelope whose end does not come out right. */
export function undecryptable(cause?: unknown): LoaderError {
  return new LoaderError(
    'envelope_invalid',
    'The resource can not be decrypted: it was uploaded under another RESOURCE_KEY, or resource_key of cdn.yaml, than this Loader has; or its end is damaged, then upload it again.',
    { cause },
  );
}

/**
 * Splits an envelope whose length is not known yet while it streams.
 *
 * `push` returns the bytes that certainly belong to the big part; `end` returns the rest of it. At most 10 KiB are held
 * back.
 */
export class EnvelopeSplitter {
  #held: Buffer[] = [];
  #heldLength = 0;
  #small: Buffer | undefined;

  /** The next bytes of the big part; empty while the end of the small part is not known. */
  push(chunk: Buffer): Buffer {
    if (this.#small !== undefined) return chunk;
    this.#held.push(chunk);
    this.#heldLength += chunk.length;
    return this.#heldLength >= SMALL_PART_DECIDED_AT ? this.#cut() : Buffer.alloc(0);
  }

  /** The last bytes of the big part; empty unless they were held back until now. */
  end(): Buffer {
    return this.#small === undefined ? this.#cut() : Buffer.alloc(0);
  }

  /** The small part. Read it after `push` has returned a byte, or after `end`. */
  get small(): Buffer {
    if (this.#small === undefined) throw new Error('EnvelopeSplitter.small was read before it was known');
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
