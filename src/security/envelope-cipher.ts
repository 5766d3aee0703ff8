import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { LoaderError } from '../errors.ts';
import { assertEnvelopeLength, BLOCK_LENGTH } from './envelope.ts';

/**
 * Bytes that are decrypted at once. For 256 KiB or more, getting memory from the system costs more time than AES
 * itself.
 */
export const DECRYPT_LENGTH = 128 * 1024;

/** Encrypts `plaintext` as it comes. `iv` is for known answers only: every real envelope has a random IV of its own. */
export async function* encryptEnvelope(
  plaintext: AsyncIterable<Buffer> | Iterable<Buffer>,
  aesKey: Buffer,
  iv: Buffer = randomBytes(BLOCK_LENGTH),
): AsyncGenerator<Buffer, void, undefined> {
  const cipher = createCipheriv('aes-256-cbc', aesKey, iv);
  yield iv;
  for await (const chunk of plaintext) {
    const encrypted = cipher.update(chunk);
    if (encrypted.length > 0) yield encrypted;
  }
  yield cipher.final();
}

/** Encrypts a small plaintext in one piece. */
export function encryptBuffer(plaintext: Buffer, aesKey: Buffer, iv: Buffer = randomBytes(BLOCK_LENGTH)): Buffer {
  const cipher = createCipheriv('aes-256-cbc', aesKey, iv);
  return Buffer.concat([iv, cipher.update(plaintext), cipher.final()]);
}

/**
 * Decrypts a small envelope in one piece.
 *
 * @throws LoaderError `envelope_invalid` when length or padding is wrong.
 */
export function decryptBuffer(envelope: Buffer, aesKey: Buffer): Buffer {
  assertEnvelopeLength(envelope.length);
  const decipher = createDecipheriv('aes-256-cbc', aesKey, envelope.subarray(0, BLOCK_LENGTH));
  try {
    return Buffer.concat([decipher.update(envelope.subarray(BLOCK_LENGTH)), decipher.final()]);
  } catch (error) {
    throw damaged(error);
  }
}

/** Decrypts whole blocks from the middle of an envelope; `previousBlock` is the stored one before them. */
export function decryptBlocks(blocks: Buffer, aesKey: Buffer, previousBlock: Buffer): Buffer {
  return createDecipheriv('aes-256-cbc', aesKey, previousBlock).setAutoPadding(false).update(blocks);
}

function damaged(cause: unknown): LoaderError {
  return new LoaderError('envelope_invalid', 'The envelope is damaged or encrypted under another key.', { cause });
}
