import { createHash } from 'node:crypto';

export interface ChunksDigest {
  /** In hex. */
  readonly sha256: string;
  /** Bytes. */
  readonly length: number;
}

/** In hex. */
export function sha256(content: Uint8Array | string): string {
  return createHash('sha256').update(content).digest('hex');
}

/** Reads chunks to their end. @throws what the chunks throw when they break off */
export async function digestChunks(chunks: AsyncIterable<Uint8Array>): Promise<ChunksDigest> {
  const hash = createHash('sha256');
  let length = 0;
  for await (const chunk of chunks) {
    hash.update(chunk);
    length += chunk.length;
  }
  return { sha256: hash.digest('hex'), length };
}

/** Reads a body to its end. @throws Error when it breaks off */
export async function digestBody({ body }: Response): Promise<ChunksDigest> {
  if (body === null) throw new Error('the response has no body');
  return await digestChunks(body);
}
