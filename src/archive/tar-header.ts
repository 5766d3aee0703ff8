import { archiveError } from './archive-error.ts';

/**
 * Headers of tar archives: POSIX ustar and PAX (IEEE Std 1003.1, pax), and GNU long names and sizes. A header is a block
 * of 512 bytes; the entry's data follows it, padded to whole blocks; two blocks of zeros end the archive.
 */
export const TAR_BLOCK_LENGTH = 512;

/** Long names and PAX records lie in entries of their own, which are read whole. */
const MAX_METADATA_LENGTH = 1024 * 1024;
const MAX_NAME_LENGTH = 4096;
/** Of all such entries together. */
const MAX_ALL_METADATA_LENGTH = 64 * 1024 * 1024;

export type TarEntryType = 'file' | 'directory' | 'symlink' | 'hardlink' | 'other';

export interface TarEntry {
  readonly name: string;
  readonly type: TarEntryType;
  /** Bytes of data that follow, without their padding. */
  readonly length: number;
  /** Where a link points to; else empty. */
  readonly linkName: string;
}

export type TarStep =
  | { readonly kind: 'entry'; readonly entry: TarEntry }
  /** An entry about the next one: its data, of `length` bytes, goes to `takeMetadata`. */
  | { readonly kind: 'metadata'; readonly length: number }
  /** A block of zeros: the end, when a second one follows. */
  | { readonly kind: 'zeros' };

const ENTRY_TYPES: Readonly<Record<string, TarEntryType>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '5': 'directory',
};
const METADATA_TYPES = ['x', 'g', 'L', 'K'];

/** Bytes from an entry's data to the next header. */
export function paddedLength(length: number): number {
  return Math.ceil(length / TAR_BLOCK_LENGTH) * TAR_BLOCK_LENGTH;
}

/** Tells whether a block has the checksum of a header: of random bytes, practically none has. */
export function isTarHeader(block: Buffer): boolean {
  if (block.length < TAR_BLOCK_LENGTH) return false;
  let sum = 0;
  for (let index = 0; index < TAR_BLOCK_LENGTH; index++) sum += isChecksumByte(index) ? 0x20 : (block[index] ?? 0);
  return sum === readOctal(block.subarray(148, 156));
}

/** Follows the headers of one archive, block by block, and joins each entry with what was said about it before. */
export class TarHeaderReader {
  #metadataType: string | undefined;
  #allMetadataLength = 0;
  #longName: string | undefined;
  #longLinkName: string | undefined;
  readonly #globalRecords = new Map<string, string>();
  #records = new Map<string, string>();

  /** Takes the next header. @throws LoaderError `archive_invalid` */
  take(block: Buffer): TarStep {
    if (block.every((byte) => byte === 0)) return { kind: 'zeros' };
    if (!isTarHeader(block)) throw archiveError('a header in it has the wrong checksum');
    const type = String.fromCharCode(block[156] ?? 0);
    const length = readNumber(block.subarray(124, 136));
    if (METADATA_TYPES.includes(type)) {
      if (length > MAX_METADATA_LENGTH) throw archiveError('a name or PAX header in it has more than 1 MiB');
      this.#allMetadataLength += TAR_BLOCK_LENGTH + length;
      if (this.#allMetadataLength > MAX_ALL_METADATA_LENGTH) throw archiveError('it has too many long names');
      this.#metadataType = type;
      return { kind: 'metadata', length };
    }
    return { kind: 'entry', entry: this.#joinEntry(block, ENTRY_TYPES[type] ?? 'other', length) };
  }

  /** Takes the data of the last header, where `take` asked for it. @throws LoaderError `archive_invalid` */
  takeMetadata(data: Buffer): void {
    if (this.#metadataType === 'L') this.#longName = readText(data);
    else if (this.#metadataType === 'K') this.#longLinkName = readText(data);
    else if (this.#metadataType === 'x') this.#records = parsePaxRecords(data);
    else for (const [key, value] of parsePaxRecords(data)) this.#globalRecords.set(key, value);
  }

  #joinEntry(block: Buffer, type: TarEntryType, lengthOfHeader: number): TarEntry {
    const record = (key: string) => {
      const value = this.#records.get(key) ?? this.#globalRecords.get(key);
      return value === '' ? undefined : value; // Empty, it takes back what stood before.
    };
    if ([...this.#records.keys()].some((key) => key.startsWith('GNU.sparse.'))) {
      throw archiveError('a file in it is sparse, which docker save never writes');
    }
    const name = record('path') ?? this.#longName ?? readName(block);
    const linkName = record('linkpath') ?? this.#longLinkName ?? readText(block.subarray(157, 257));
    const size = record('size');
    if (size !== undefined && !/^\d{1,15}$/.test(size))
      throw archiveError('a PAX header in it has a size that is no number');
    this.#longName = undefined;
    this.#longLinkName = undefined;
    this.#records = new Map();
    if (name.length > MAX_NAME_LENGTH || linkName.length > MAX_NAME_LENGTH) {
      throw archiveError(`a name in it has more than ${MAX_NAME_LENGTH} characters`);
    }
    const hasData = type === 'file' || type === 'other';
    return { name, type, length: hasData ? Number(size ?? lengthOfHeader) : 0, linkName };
  }
}

/** The header of a regular file, for archives that we write. `name` is ASCII and has at most 100 bytes. */
export function createTarHeader(name: string, length: number): Buffer {
  const block = Buffer.alloc(TAR_BLOCK_LENGTH);
  block.write(name, 0, 100, 'ascii');
  block.write('0000644\0', 100, 'ascii');
  block.write('0000000\0', 108, 'ascii');
  block.write('0000000\0', 116, 'ascii');
  if (length < 8 ** 11) {
    block.write(`${length.toString(8).padStart(11, '0')}\0`, 124, 'ascii');
  } else {
    // GNU: a number that octal digits can't hold is binary, marked by its first bit.
    block.writeUInt8(0x80, 124);
    block.writeBigUInt64BE(BigInt(length), 128);
  }
  block.write('00000000000\0', 136, 'ascii');
  block.write('0', 156, 'ascii');
  block.write('ustar\x0000', 257, 'ascii');
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'ascii');
  return block;
}

function isChecksumByte(index: number): boolean {
  return index >= 148 && index < 156;
}

function readName(block: Buffer): string {
  const name = readText(block.subarray(0, 100));
  // Of GNU headers, which end their magic with a space, the prefix holds other things.
  const isPosix = block.toString('latin1', 257, 263) === 'ustar\0';
  const prefix = isPosix ? readText(block.subarray(345, 500)) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

function readText(field: Buffer): string {
  const end = field.indexOf(0);
  return field.toString('utf8', 0, end === -1 ? field.length : end);
}

function readNumber(field: Buffer): number {
  if (((field[0] ?? 0) & 0x80) === 0) {
    const value = readOctal(field);
    if (value === undefined) throw archiveError('a header in it has a size that is no number');
    return value;
  }
  // Negative ones (0xff) and those beyond 2^53 come out as no safe integer.
  const value = Number(BigInt(`0x${field.toString('hex')}`) & ~(0x80n << 88n));
  if (!Number.isSafeInteger(value)) throw archiveError('a header in it has an impossible size');
  return value;
}

/** Octal digits, with spaces or zeros around them; undefined for anything else. */
function readOctal(field: Buffer): number | undefined {
  const digits = /^[ \0]*([0-7]*)[ \0]*$/.exec(field.toString('latin1'))?.[1];
  return digits === undefined ? undefined : Number.parseInt(digits === '' ? '0' : digits, 8);
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
