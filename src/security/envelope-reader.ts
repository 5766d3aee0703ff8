import { createDecipheriv } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { FILE_CHUNK_LENGTH, readFileChunks } from '../files/file-chunks.ts';
import { DECRYPT_LENGTH } from './envelope-cipher.ts';
import { BLOCK_LENGTH } from './envelope.ts';

/**
 * Reads an envelope on disk at random (docs/protocol.md section 3). It decrypts a range from that range of the file and
 * one block before it, since a block needs only the one before.
 *
 * The padding is never read: `plaintextLength` comes from `preflightEnvelope`.
 */
export class EnvelopeReader {
  readonly plaintextLength: number;
  readonly #file: FileHandle;
  readonly #aesKey: Buffer;

  /** The caller closes `file`, after all reads have ended. */
  constructor(file: FileHandle, plaintextLength: number, aesKey: Buffer) {
    this.#file = file;
    this.plaintextLength = plaintextLength;
    this.#aesKey = aesKey;
  }

  /**
   * Decrypts the bytes from `start` to `end` (exclusive) of the plaintext as a stream. The chunks belong to the
   * consumer.
   *
   * @throws RangeError beyond the plaintext; EndOfFileError when the file ends before `end`
   */
  async *stream(start: number, end: number): AsyncGenerator<Buffer, void, undefined> {
    this.#assertRange(start, end);
    if (start === end) return;
    const firstBlock = Math.floor(start / BLOCK_LENGTH);
    const endBlock = Math.ceil(end / BLOCK_LENGTH);
    // The IV precedes block 0 in the file, so this range begins with the block before the first.
    const chunks = readFileChunks(
      this.#file,
      firstBlock * BLOCK_LENGTH,
      (endBlock + 1) * BLOCK_LENGTH,
      FILE_CHUNK_LENGTH,
    );
    let decipher: ReturnType<typeof createDecipheriv> | undefined;
    let position = firstBlock * BLOCK_LENGTH;
    for await (const chunk of chunks) {
      let encrypted = chunk;
      if (decipher === undefined) {
        decipher = createDecipheriv('aes-256-cbc', this.#aesKey, chunk.subarray(0, BLOCK_LENGTH));
        decipher.setAutoPadding(false);
        encrypted = chunk.subarray(BLOCK_LENGTH);
      }
      for (let offset = 0; offset < encrypted.length; offset += DECRYPT_LENGTH) {
        const plaintext = decipher.update(encrypted.subarray(offset, offset + DECRYPT_LENGTH));
        const from = Math.max(0, start - position);
        const to = Math.min(plaintext.length, end - position);
        // It is counted before the chunk is yielded, since the consumer may release the chunk.
        position += plaintext.length;
        yield from === 0 && to === plaintext.length ? plaintext : plaintext.subarray(from, to);
      }
    }
  }

  /** Decrypts a small range in one piece. @throws as `stream` does */
  async read(start: number, end: number): Promise<Buffer> {
    return Buffer.concat(await Array.fromAsync(this.stream(start, end)));
  }

  #assertRange(start: number, end: number): void {
    if (start >= 0 && start <= end && end <= this.plaintextLength) return;
    throw new RangeError(`${start} to ${end} is not a range of ${this.plaintextLength} bytes`);
  }
}
