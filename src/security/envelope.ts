import { createDecipheriv } from 'node:crypto';
import { LoaderError } from '../errors.ts';

/**
 * The format of an envelope (docs/protocol.md section 3):
 *
 *     IV (16 random bytes) || AES-256-CBC(PKCS#7(plaintext))
 *
 * CBC is not authenticated: a flipped bit in the middle decrypts without an error. Only a wrong length, a wrong padding
 * and thus most wrong keys are noticed here; callers that need more check digests.
 */

export const BLOCK_LENGTH = 16;
/** IV and one block of padding: the envelope of an empty plaintext. */
export const MIN_ENVELOPE_LENGTH = 2 * BLOCK_LENGTH;

/** Bytes of the envelope of `plaintextLength` bytes. */
export function envelopeLength(plaintextLength: number): number {
  return BLOCK_LENGTH + BLOCK_LENGTH * (Math.floor(plaintextLength / BLOCK_LENGTH) + 1);
}

/** @throws LoaderError `envelope_invalid` when no envelope can have `length` bytes. */
export function assertEnvelopeLength(length: number): void {
  if (length < MIN_ENVELOPE_LENGTH || length % BLOCK_LENGTH !== 0) {
    throw new LoaderError(
      'envelope_invalid',
      `The envelope has ${length} bytes; a whole one has at least 32, in blocks of 16: it is damaged or cut.`,
    );
  }
}

/** The bytes at an envelope's end that `preflightEnvelope` needs: the last block, and the block before it. */
export const PREFLIGHT_LENGTH = 2 * BLOCK_LENGTH;

/**
 * Returns the exact length of the plaintext, in bytes. It needs only the last two blocks of the envelope.
 *
 * It also proves the key, except that one wrong key in 256 gives a valid padding by chance. It says nothing about the
 * bytes in the middle.
 *
 * @throws LoaderError `envelope_invalid` when `envelopeLength` can't be an envelope's, or the padding is wrong.
 */
export function preflightEnvelope(envelopeLength: number, lastTwoBlocks: Buffer, aesKey: Buffer): number {
  assertEnvelopeLength(envelopeLength);
  const decipher = createDecipheriv('aes-256-cbc', aesKey, lastTwoBlocks.subarray(0, BLOCK_LENGTH));
  decipher.setAutoPadding(false);
  const block = decipher.update(lastTwoBlocks.subarray(BLOCK_LENGTH, PREFLIGHT_LENGTH));
  const padding = block.at(-1) ?? 0;
  const isPadding = padding >= 1 && padding <= BLOCK_LENGTH;
  if (!isPadding || !block.subarray(BLOCK_LENGTH - padding).every((byte) => byte === padding)) {
    throw new LoaderError('envelope_invalid', 'The envelope is damaged at its end or encrypted under another key.');
  }
  return envelopeLength - BLOCK_LENGTH - padding;
}
