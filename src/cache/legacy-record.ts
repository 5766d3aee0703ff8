import { rm } from 'node:fs/promises';
import { readSmallFile } from '../files/small-file.ts';
import { asRecord, parseJson } from '../json.ts';
import type { ChunkDigests, CopyRecord } from './copy-record.ts';

/*
 * What versions of the Loader before manifests kept beside a copy: its record as `<name>.big.json`, and its digests as
 * `<name>.big.sums`. A copy with these is taken over as it is, and gets a record of today.
 */

/** Bytes. */
const MAX_RECORD_LENGTH = 4096;
const MAX_DIGESTS_LENGTH = 4 * 1024 * 1024;
const CHUNK_LENGTH = 4 * 1024 * 1024;

function pathsOf(bigPath: string) {
  return { record: `${bigPath}.json`, digests: `${bigPath}.sums` };
}

/** The record of an earlier version; undefined when there is none, `damaged` when it can't be read as one. */
export async function readLegacyRecord(bigPath: string): Promise<CopyRecord | 'damaged' | undefined> {
  const paths = pathsOf(bigPath);
  const text = await readSmallFile(paths.record, MAX_RECORD_LENGTH);
  if (text === undefined) return undefined;
  const { bigLength, smallSha256, etag, isPair, madeAtMs } = asRecord(parseJson(text)) ?? {};
  if (typeof bigLength !== 'number' || typeof smallSha256 !== 'string') return 'damaged';
  return {
    bigLength,
    smallSha256,
    chunks: await readDigests(paths.digests, bigLength),
    ...(typeof etag === 'string' && { etag }),
    ...(isPair === true && { isPair }),
    ...(typeof madeAtMs === 'number' && { madeAtMs }),
  };
}

/** Undefined where they must be made anew. */
async function readDigests(filePath: string, expectedLength: number): Promise<ChunkDigests | undefined> {
  const text = await readSmallFile(filePath, MAX_DIGESTS_LENGTH).catch(() => undefined);
  const { version, bigLength, chunkLength, chunkSha256 } = asRecord(parseJson(text ?? '')) ?? {};
  if (version !== 1 || chunkLength !== CHUNK_LENGTH || bigLength !== expectedLength) return undefined;
  if (!Array.isArray(chunkSha256) || !chunkSha256.every(isDigest)) return undefined;
  return chunkSha256.length === Math.ceil(expectedLength / CHUNK_LENGTH) ? { chunkLength, chunkSha256 } : undefined;
}

/** The name of the resource in such a record; undefined when there is none. */
export async function readLegacyName(bigPath: string): Promise<string | undefined> {
  const text = await readSmallFile(pathsOf(bigPath).record, MAX_RECORD_LENGTH).catch(() => undefined);
  const name = text === undefined ? undefined : asRecord(parseJson(text))?.['name'];
  return typeof name === 'string' ? name : undefined;
}

export async function removeLegacyFiles(bigPath: string): Promise<void> {
  const paths = pathsOf(bigPath);
  await rm(paths.digests, { force: true });
  await rm(paths.record, { force: true });
}

function isDigest(value: unknown): value is string {
  return typeof value === 'string' && /^[\da-f]{64}$/.test(value);
}
