import type { Dirent } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';
import path from 'node:path';
import { systemErrorCode } from '../errors.ts';
import { readSmallBytes } from '../files/small-file.ts';
import type { Logger } from '../log/logger.ts';
import { MAX_ENVELOPE_LENGTH } from '../manifest/dsse-envelope.ts';
import { parseRecordedName } from './copy-record.ts';
import { readLegacyName } from './legacy-record.ts';
import { copyPaths, copyStem, isDigestStem, stemOf } from './copy-paths.ts';
import { isSafeFolder } from '../resource-name.ts';

/** A file of the cache that takes room. A copy's record belongs to it; its bytes are not counted. */
export interface CacheEntry {
  readonly kind: 'copy' | 'set_aside';
  readonly folder: string;
  /** File name, such as `model.big`. */
  readonly file: string;
  /** Of the resource; undefined where the file is named by a digest and no record tells the name. */
  readonly name: string | undefined;
  /** Bytes. */
  readonly length: number;
  /** When it was last loaded or published, in ms since 1970. */
  readonly loadedAtMs: number;
}

/**
 * All copies, and all files that were set aside, in no particular order. Symbolic links are not followed. A folder that
 * can't be read is skipped with a warning. Files that come or go meanwhile may or may not be among them.
 *
 * @throws the reason of `signal`
 */
export async function* listCacheEntries(
  root: string,
  logger: Logger,
  signal: AbortSignal,
): AsyncGenerator<CacheEntry, void, undefined> {
  for (const child of await readFolder(root, logger)) {
    if (child.isDirectory()) yield* listFolder(root, child.name, logger, signal);
  }
}

async function* listFolder(
  root: string,
  folder: string,
  logger: Logger,
  signal: AbortSignal,
): AsyncGenerator<CacheEntry, void, undefined> {
  if (!isSafeFolder(folder)) return;
  for (const child of await readFolder(path.join(root, folder), logger)) {
    signal.throwIfAborted();
    if (child.isDirectory()) yield* listFolder(root, `${folder}/${child.name}`, logger, signal);
    const entry = child.isFile() ? await describeFile(root, folder, child.name, logger) : undefined;
    if (entry !== undefined) yield entry;
  }
}

async function readFolder(folderPath: string, logger: Logger): Promise<Dirent[]> {
  try {
    return await readdir(folderPath, { withFileTypes: true });
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') logger.warn({ err: error }, 'A folder of the cache could not be listed');
    return [];
  }
}

async function describeFile(
  root: string,
  folder: string,
  file: string,
  logger: Logger,
): Promise<CacheEntry | undefined> {
  const kind = file.endsWith('.bad') ? 'set_aside' : 'copy';
  const stem = stemOf(file, kind);
  if (stem === undefined) return undefined;
  const folderPath = path.join(root, folder);
  try {
    const stats = await lstat(path.join(folderPath, file));
    if (!stats.isFile()) return undefined;
    const name = isDigestStem(stem) ? await recordedName(folderPath, stem) : stem;
    return { kind, folder, file, name, length: stats.size, loadedAtMs: Math.trunc(stats.mtimeMs) };
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') logger.warn({ err: error }, 'A file of the cache could not be listed');
    return undefined;
  }
}

async function recordedName(folderPath: string, stem: string): Promise<string | undefined> {
  const { big, record } = copyPaths(folderPath, stem);
  const bytes = await readSmallBytes(record, MAX_ENVELOPE_LENGTH).catch(() => undefined);
  const name = bytes === undefined ? await readLegacyName(big) : parseRecordedName(bytes);
  return name !== undefined && copyStem(name) === stem ? name : undefined;
}

/** What was set aside is of no use, so it goes first. Then comes the copy that was loaded longest ago. */
export function inOrderOfRemoval(a: CacheEntry, b: CacheEntry): number {
  if (a.kind !== b.kind) return a.kind === 'set_aside' ? -1 : 1;
  return a.loadedAtMs - b.loadedAtMs;
}
