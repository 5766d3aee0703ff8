import { asRecord, parseJson } from '../json.ts';

/** The digests of a copy's chunks. They stand beside it as `<name>.big.sums` (docs/protocol.md section 9). */
export interface ChunkDigests {
  /** Bytes of the big part. */
  readonly bigLength: number;
  /** SHA-256, hex, of each chunk; the last chunk may be shorter than the others. */
  readonly chunkSha256: readonly string[];
}

/** Bytes of a chunk, as in the integrity manifest (docs/protocol.md section 7). */
export const DIGEST_CHUNK_LENGTH = 4 * 1024 * 1024;
/** Bytes: enough for copies of 240 GiB. */
export const MAX_DIGESTS_LENGTH = 4 * 1024 * 1024;

export function formatDigests({ bigLength, chunkSha256 }: ChunkDigests): string {
  return JSON.stringify({ version: 1, bigLength, chunkLength: DIGEST_CHUNK_LENGTH, chunkSha256 });
}

/** The digests in a text; undefined when they can't be used. */
export function parseDigests(text: string): ChunkDigests | undefined {
  const { version, bigLength, chunkLength, chunkSha256 } = asRecord(parseJson(text)) ?? {};
  if (version !== 1 || chunkLength !== DIGEST_CHUNK_LENGTH || typeof bigLength !== 'number') return undefined;
  if (!Array.isArray(chunkSha256) || !chunkSha256.every(isDigest)) return undefined;
  return chunkSha256.length === chunkCount(bigLength) ? { bigLength, chunkSha256 } : undefined;
}

function chunkCount(bigLength: number): number {
  return Math.ceil(bigLength / DIGEST_CHUNK_LENGTH);
}

function isDigest(value: unknown): value is string {
  return typeof value === 'string' && /^[\da-f]{64}$/.test(value);
}
