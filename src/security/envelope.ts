import { createDecipheriv } from 'node:crypto';
import { LoaderError } from '../errors.ts';
import { assertEnvelopeLength, BLOCK_LENGTH } from './envelope-cipher.ts';

/** How many of an envelope's last bytes `preflightEnvelope` needs: the last block, and the one that it is chained to. */
export const PREFLIGHT_LENGTH = 2 * BLOCK_LENGTH;

/**
 * Tells the exact length of the plaintext, in bytes, from an envelope's last two blocks, before anything else is read.
 *
 * It proves the key but for one wrong key in 256, which happens to give a valid padding, and says nothing about the
 * bytes in the middle (docs/protocol.md section 3).
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
