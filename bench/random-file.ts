import { createHash, randomFillSync } from 'node:crypto';
import { open } from 'node:fs/promises';

const CHUNK_LENGTH = 8 * 1024 * 1024;

/** Writes `length` random bytes, synced, so that no write-back falls into a measurement. Returns their SHA-256. */
export async function writeRandomFile(filePath: string, length: number, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  const buffer = Buffer.alloc(Math.min(length, CHUNK_LENGTH));
  const file = await open(filePath, 'w');
  try {
    for (let written = 0; written < length;) {
      signal.throwIfAborted();
      const chunk = randomFillSync(buffer).subarray(0, length - written);
      hash.update(chunk);
      await file.writeFile(chunk);
      written += chunk.length;
    }
    await file.sync();
  } finally {
    await file.close();
  }
  return hash.digest('hex');
}
