import { LoaderError } from '../errors.ts';
import { readSmallFile, UnfitFileError } from '../files/small-file.ts';

/** What a published big part was paired with; stands beside it as `<name>.big.json`. */
export interface CopyRecord {
  /** Bytes of the big part. */
  readonly bigLength: number;
  /** SHA-256, hex, of the small part that belongs to the same envelope. */
  readonly smallSha256: string;
}

interface StoredRecord extends CopyRecord {
  /** Of the resource, where the files are named by its digest. */
  readonly name: string | undefined;
}

const MAX_RECORD_LENGTH = 4096;

/** The text of a record. `name` is for files that are named by its digest. */
export function formatRecord(record: CopyRecord, name: string | undefined): string {
  return JSON.stringify({ version: 1, bigLength: record.bigLength, smallSha256: record.smallSha256, name });
}

/**
 * Without a record, a copy is judged by its envelope alone, as one of an older Loader is. So a record that is there must
 * be readable: it alone tells an outdated copy.
 *
 * @throws LoaderError `cache_unusable` when it is damaged; the system's error
 */
export async function readRecord(filePath: string): Promise<CopyRecord | undefined> {
  const text = await readSmallFile(filePath, MAX_RECORD_LENGTH).catch(foreignFile);
  if (text === undefined) return undefined;
  const record = parseRecord(text);
  if (record === undefined) throw new LoaderError('cache_unusable', 'The record of a copy in the cache is damaged.');
  return { bigLength: record.bigLength, smallSha256: record.smallSha256 };
}

/** The name of the resource that a record tells; undefined when it tells none, for whatever reason. */
export async function readRecordedName(filePath: string): Promise<string | undefined> {
  const text = await readSmallFile(filePath, MAX_RECORD_LENGTH).catch(() => undefined);
  return text === undefined ? undefined : parseRecord(text)?.name;
}

function parseRecord(text: string): StoredRecord | undefined {
  try {
    const record: unknown = JSON.parse(text);
    if (typeof record !== 'object' || record === null) return undefined;
    if (!('bigLength' in record) || typeof record.bigLength !== 'number') return undefined;
    if (!('smallSha256' in record) || typeof record.smallSha256 !== 'string') return undefined;
    const name = 'name' in record && typeof record.name === 'string' ? record.name : undefined;
    return { bigLength: record.bigLength, smallSha256: record.smallSha256, name };
  } catch {
    return undefined;
  }
}

function foreignFile(error: unknown): never {
  if (!(error instanceof UnfitFileError)) throw error;
  throw new LoaderError('cache_unusable', 'A file beside a copy in the cache was not made by the Loader.', {
    cause: error,
  });
}
