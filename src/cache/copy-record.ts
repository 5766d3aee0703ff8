import { LoaderError } from '../errors.ts';
import { readSmallFile, UnfitFileError } from '../files/small-file.ts';
import { asRecord, parseJson } from '../json.ts';

/** The version to which a published big part belongs. It stands beside it as `<name>.big.json`. */
export interface CopyRecord {
  /** Bytes of the big part. */
  readonly bigLength: number;
  /** SHA-256, hex, of the small part of the same envelope. */
  readonly smallSha256: string;
  /** Of the object on the CDN that the copy was made from; undefined where the record does not tell it. */
  readonly etag?: string | undefined;
  /** Whether it is certain that both parts are of one version. The copies of older Loaders are not. */
  readonly isPair?: boolean;
  /** When the copy was made, in ms since 1970. */
  readonly madeAtMs?: number | undefined;
}

const MAX_RECORD_LENGTH = 4096;

/** The text of a record. `name` is that of the resource where its files are named by a digest. */
export function formatRecord(record: CopyRecord, name: string | undefined): string {
  const { bigLength, smallSha256, etag, isPair, madeAtMs } = record;
  return JSON.stringify({ version: 1, bigLength, smallSha256, etag, isPair, madeAtMs, name });
}

/**
 * The record in a file; undefined when there is none, as beside the copies of an older Loader, which are judged by their
 * envelope alone. A damaged record is an error, since only a record tells an outdated copy.
 *
 * @throws LoaderError `cache_unusable` when it is damaged; the system's error
 */
export async function readRecord(filePath: string): Promise<CopyRecord | undefined> {
  const text = await readSmallFile(filePath, MAX_RECORD_LENGTH).catch(foreignFile);
  if (text === undefined) return undefined;
  const record = parseRecord(text);
  if (record === undefined) throw new LoaderError('cache_unusable', 'The record of a copy in the cache is damaged.');
  return record;
}

/** The name of the resource in a record; undefined when the record has none or can't be read. */
export async function readRecordedName(filePath: string): Promise<string | undefined> {
  const text = await readSmallFile(filePath, MAX_RECORD_LENGTH).catch(() => undefined);
  if (text === undefined || parseRecord(text) === undefined) return undefined;
  const name = asRecord(parseJson(text))?.['name'];
  return typeof name === 'string' ? name : undefined;
}

function parseRecord(text: string): CopyRecord | undefined {
  const { bigLength, smallSha256, etag, isPair, madeAtMs } = asRecord(parseJson(text)) ?? {};
  if (typeof bigLength !== 'number' || typeof smallSha256 !== 'string') return undefined;
  return {
    bigLength,
    smallSha256,
    ...(typeof etag === 'string' && { etag }),
    ...(isPair === true && { isPair }),
    ...(typeof madeAtMs === 'number' && { madeAtMs }),
  };
}

function foreignFile(error: unknown): never {
  if (!(error instanceof UnfitFileError)) throw error;
  throw new LoaderError('cache_unusable', 'A file beside a copy in the cache was not made by the Loader.', {
    cause: error,
  });
}
