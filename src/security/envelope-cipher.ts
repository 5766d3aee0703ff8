import { createCipheriv, createDecipheriv, randomBytes, type Decipheriv } from 'node:crypto';
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

/**
 * Decrypts an envelope as it comes, in chunks of any length. The chunks that it yields belong to the consumer.
 *
 * @throws LoaderError `envelope_invalid` at the end, when the length or the padding is wrong. The chunks that came before
 * are then not the whole plaintext.
 */
export async function* decryptEnvelope(
  envelope: AsyncIterable<Buffer> | Iterable<Buffer>,
  aesKey: Buffer,
): AsyncGenerator<Buffer, void, undefined> {
  let head = Buffer.alloc(0);
  let decipher: Decipheriv | undefined;
  for await (const chunk of envelope) {
    let encrypted = chunk;
    if (decipher === undefined) {
      head = Buffer.concat([head, chunk]);
      if (head.length < BLOCK_LENGTH) continue;
      decipher = createDecipheriv('aes-256-cbc', aesKey, head.subarray(0, BLOCK_LENGTH));
      encrypted = head.subarray(BLOCK_LENGTH);
    }
    for (let start = 0; start < encrypted.length; start += DECRYPT_LENGTH) {
      const plaintext = decipher.update(encrypted.subarray(start, start + DECRYPT_LENGTH));
      if (plaintext.length > 0) yield plaintext;
    }
  }
  if (decipher === undefined) throw new LoaderError('envelope_invalid', 'The envelope is shorter than its IV.');
  let last: Buffer;
  try {
    last = decipher.final();
  } catch (error) {
    throw damaged(error);
  }
  if (last.length > 0) yield last;
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

function damaged(cause: unknown): LoaderError {
  return new LoaderError('envelope_invalid', 'The envelope is damaged or encrypted under another key.', { cause });
}
