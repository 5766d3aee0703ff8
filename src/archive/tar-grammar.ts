import { archiveError } from './archive-error.ts';
import { paddedLength, readTarHeader, readTarText, TAR_BLOCK_LENGTH, type TarHeader } from './tar-header.ts';

export type TarEntryType = 'file' | 'directory' | 'symlink' | 'hardlink' | 'other';

export interface TarEntry {
  readonly name: string;
  readonly type: TarEntryType;
  /** Bytes of data that follow, without their padding. */
  readonly length: number;
  /** Where a link points to; else empty. */
  readonly linkName: string;
}

/** The next bytes of a tar, and what the grammar wants of them. */
export type TarRequest =
  /** The driver returns these bytes in one piece. `isEnding`: they follow a block of zeros, and may complete the end. */
  | { readonly kind: 'read'; readonly length: number; readonly isEnding: boolean }
  /** The data of an entry. The driver may look at it or not. */
  | { readonly kind: 'data'; readonly length: number; readonly entry: TarEntry }
  /** Padding. */
  | { readonly kind: 'skip'; readonly length: number };

const ENTRY_TYPES: Readonly<Record<string, TarEntryType>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '5': 'directory',
};
/** Entries about the next entry, or about all that follow: PAX (x, g) and GNU long names (L) and links (K). */
const METADATA_FLAGS = ['x', 'g', 'L', 'K'];
/** Metadata is read whole. */
const MAX_METADATA_LENGTH = 1024 * 1024;
/** Of all metadata of an archive together. */
const MAX_ALL_METADATA_LENGTH = 64 * 1024 * 1024;
const MAX_NAME_LENGTH = 4096;

/**
 * The grammar of a tar (IEEE Std 1003.1, pax; and GNU): headers, each followed by its data, which is padded to whole
 * blocks; two blocks of zeros end it.
 *
 * The grammar reads nothing itself. It yields one request after another, in the order of the bytes and without a gap
 * between them; its driver has the bytes, wherever they come from, and answers a `read` with them. It returns behind the
 * end mark.
 *
 * @throws LoaderError `archive_invalid`
 */
export function* tarGrammar(): Generator<TarRequest, void, Buffer> {
  const metadata = new TarMetadata();
  for (let zeros = 0; zeros < 2;) {
    const header = readTarHeader(yield { kind: 'read', length: TAR_BLOCK_LENGTH, isEnding: zeros > 0 });
    if (header === undefined) {
      zeros++;
      continue;
    }
    zeros = 0;
    let { length } = header;
    if (METADATA_FLAGS.includes(header.flag)) {
      metadata.assertRoom(length);
      metadata.take(header.flag, yield { kind: 'read', length, isEnding: false });
    } else {
      const entry = metadata.join(header);
      ({ length } = entry);
      yield { kind: 'data', length, entry };
    }
    yield { kind: 'skip', length: paddedLength(length) - length };
  }
}

/** Joins each entry with what was said about it before. */
class TarMetadata {
  readonly #globalRecords = new Map<string, string>();
  #records = new Map<string, string>();
  #longName: string | undefined;
  #longLinkName: string | undefined;
  #allLength = 0;

  /** Before metadata of that many bytes is read. @throws LoaderError `archive_invalid` */
  assertRoom(length: number): void {
    if (length > MAX_METADATA_LENGTH) throw archiveError('a name or PAX header in it has more than 1 MiB');
    this.#allLength += TAR_BLOCK_LENGTH + length;
    if (this.#allLength > MAX_ALL_METADATA_LENGTH) throw archiveError('it has too many long names');
  }

  /** @throws LoaderError `archive_invalid` */
  take(flag: string, data: Buffer): void {
    if (flag === 'L') this.#longName = readTarText(data);
    else if (flag === 'K') this.#longLinkName = readTarText(data);
    else if (flag === 'x') this.#records = parsePaxRecords(data);
    else for (const [key, value] of parsePaxRecords(data)) this.#globalRecords.set(key, value);
  }

  /** @throws LoaderError `archive_invalid` */
  join(header: TarHeader): TarEntry {
    if ([...this.#records.keys()].some((key) => key.startsWith('GNU.sparse.'))) {
      throw archiveError('a file in it is sparse, which docker save never writes');
    }
    const name = this.#record('path') ?? this.#longName ?? header.name;
    const linkName = this.#record('linkpath') ?? this.#longLinkName ?? header.linkName;
    const size = this.#record('size');
    if (size !== undefined && !/^\d{1,15}$/.test(size)) {
      throw archiveError('a PAX header in it has a size that is not a number');
    }
    this.#longName = undefined;
    this.#longLinkName = undefined;
    this.#records = new Map();
    if (name.length > MAX_NAME_LENGTH || linkName.length > MAX_NAME_LENGTH) {
      throw archiveError(`a name in it has more than ${MAX_NAME_LENGTH} characters`);
    }
    const type = ENTRY_TYPES[header.flag] ?? 'other';
    const hasData = type === 'file' || type === 'other';
    return { name, type, length: hasData ? Number(size ?? header.length) : 0, linkName };
  }

  /** An empty value takes back what was said before. */
  #record(key: string): string | undefined {
    const value = this.#records.get(key) ?? this.#globalRecords.get(key);
    return value === '' ? undefined : value;
  }
}

/** `<length> <key>=<value>\n`, again and again; the length, in bytes, counts the whole record. */
function parsePaxRecords(data: Buffer): Map<string, string> {
  const records = new Map<string, string>();
  for (let start = 0; start < data.length;) {
    const space = data.indexOf(0x20, start);
    const digits = data.toString('latin1', start, space === -1 ? start : space);
    const length = /^\d{1,7}$/.test(digits) ? Number(digits) : 0;
    const end = start + length;
    const isWhole = length > 0 && end <= data.length && data[end - 1] === 0x0a;
    const record = isWhole ? data.toString('utf8', space + 1, end - 1) : '';
    const equals = record.indexOf('=');
    if (equals < 1) throw archiveError('a PAX header in it is malformed');
    records.set(record.slice(0, equals), record.slice(equals + 1));
    start = end;
  }
  return records;
}
