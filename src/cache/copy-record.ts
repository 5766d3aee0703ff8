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

/** Bytes. */
export const MAX_RECORD_LENGTH = 4096;

/** The text of a record. `name` is that of the resource where its files are named by a digest. */
export function formatRecord(record: CopyRecord, name: string | undefined): string {
  const { bigLength, smallSha256, etag, isPair, madeAtMs } = record;
  return JSON.stringify({ version: 1, bigLength, smallSha256, etag, isPair, madeAtMs, name });
}

/** The name of the resource in the text of a record; undefined when there is none, or the record is damaged. */
export function parseRecordedName(text: string): string | undefined {
  if (parseRecord(text) === undefined) return undefined;
  const name = asRecord(parseJson(text))?.['name'];
  return typeof name === 'string' ? name : undefined;
}

/** Undefined when it is damaged. */
export function parseRecord(text: string): CopyRecord | undefined {
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
