import { archiveError } from './archive-error.ts';
import { paddedLength, readTarHeader, readTarText, TAR_BLOCK_LENGTH, type TarHeader } from './tar-header.ts';

export type TarEntryType = 'file' | 'directory' | 'symlink' | 'hardlink' | 'other';

export interface TarEntry {
  readonly name: string;
  readonly type: TarEntryType;
  /** Bytes of data that follow, without their padding. */
  readonly length: number;
  /** The target of a link; otherwise empty. */
  readonly linkName: string;
}

/** The next bytes of a tar, and what the driver does with them. */
export type TarRequest =
  /**
   * The driver passes these bytes back in one piece. `isEnding`: they follow a block of zeros, and may complete the
   * end.
   */
  | { readonly kind: 'read'; readonly length: number; readonly isEnding: boolean }
  /** The data of an entry. The driver may use it or skip it. */
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
/** For one piece of metadata, which is held in memory. */
const MAX_METADATA_LENGTH = 1024 * 1024;
/** For all metadata of an archive together. */
const MAX_ALL_METADATA_LENGTH = 64 * 1024 * 1024;
const MAX_NAME_LENGTH = 4096;

/**
 * The grammar of a tar (IEEE Std 1003.1, pax; and GNU). Each header is followed by its data, which is padded to whole
 * blocks. Two blocks of zeros end the tar.
 *
 * The grammar reads nothing itself. It yields one request after another, in the order of the bytes and without gaps.
 * Its driver has the bytes, and passes those of a `read` back. The grammar returns after the end mark.
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

/** Joins each entry with the metadata that came before it. */
class TarMetadata {
  readonly #globalRecords = new Map<string, string>();
  #records = new Map<string, string>();
  #longName: string | undefined;
  #longLinkName: string | undefined;
  #allLength = 0;

  /** Call it before metadata of `length` bytes is read. @throws LoaderError `archive_invalid` */
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

  /** An empty value cancels an earlier one. */
  #record(key: string): string | undefined {
    const value = this.#records.get(key) ?? this.#globalRecords.get(key);
    return value === '' ? undefined : value;
  }
}

/** Parses records of the form `<length> <key>=<value>\n`. The length is that of the whole record, in bytes. */
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
