import { archiveError } from './archive-error.ts';

/**
 * One block of a tar archive that is a header: POSIX ustar, and GNU sizes. A block has 512 bytes. tar-grammar.ts says how
 * headers follow each other.
 */
export const TAR_BLOCK_LENGTH = 512;

/** What a header itself says. PAX records and GNU long names before it may override it. */
export interface TarHeader {
  /** The type flag: one character. */
  readonly flag: string;
  readonly name: string;
  /** The target of a link; otherwise empty. */
  readonly linkName: string;
  /** Bytes of the data that follows, without their padding. */
  readonly length: number;
}

/** Bytes from the start of an entry's data to the next header. */
export function paddedLength(length: number): number {
  return Math.ceil(length / TAR_BLOCK_LENGTH) * TAR_BLOCK_LENGTH;
}

/** Tells whether a block has the checksum of a header. Random bytes practically never have it. */
export function isTarHeader(block: Buffer): boolean {
  if (block.length < TAR_BLOCK_LENGTH) return false;
  let sum = 0;
  for (let index = 0; index < TAR_BLOCK_LENGTH; index++) sum += isChecksumByte(index) ? 0x20 : (block[index] ?? 0);
  return sum === readOctal(block.subarray(148, 156));
}

/** Reads a header. Returns undefined for a block of zeros. @throws LoaderError `archive_invalid` */
export function readTarHeader(block: Buffer): TarHeader | undefined {
  if (block.every((byte) => byte === 0)) return undefined;
  if (!isTarHeader(block)) throw archiveError('a header in it has the wrong checksum');
  return {
    flag: String.fromCharCode(block[156] ?? 0),
    name: readName(block),
    linkName: readTarText(block.subarray(157, 257)),
    length: readNumber(block.subarray(124, 136)),
  };
}

/** The header of a regular file, for archives that the Loader writes. `name` is ASCII and has at most 100 bytes. */
export function createTarHeader(name: string, length: number): Buffer {
  const block = Buffer.alloc(TAR_BLOCK_LENGTH);
  block.write(name, 0, 100, 'ascii');
  block.write('0000644\0', 100, 'ascii');
  block.write('0000000\0', 108, 'ascii');
  block.write('0000000\0', 116, 'ascii');
  if (length < 8 ** 11) {
    block.write(`${length.toString(8).padStart(11, '0')}\0`, 124, 'ascii');
  } else {
    // When octal digits can't hold a number, GNU writes it in binary, and sets the first bit.
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

/** The text of a field, which ends at its first zero byte. */
export function readTarText(field: Buffer): string {
  const end = field.indexOf(0);
  return field.toString('utf8', 0, end === -1 ? field.length : end);
}

function isChecksumByte(index: number): boolean {
  return index >= 148 && index < 156;
}

function readName(block: Buffer): string {
  const name = readTarText(block.subarray(0, 100));
  // GNU headers end their magic with a space, and hold other things where POSIX has the prefix.
  const isPosix = block.toString('latin1', 257, 263) === 'ustar\0';
  const prefix = isPosix ? readTarText(block.subarray(345, 500)) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

function readNumber(field: Buffer): number {
  if (((field[0] ?? 0) & 0x80) === 0) {
    const value = readOctal(field);
    if (value === undefined) throw archiveError('a header in it has a size that is not a number');
    return value;
  }
  // Negative numbers (0xff) and those beyond 2^53 do not give a safe integer.
  const value = Number(BigInt(`0x${field.toString('hex')}`) & ~(0x80n << 88n));
  if (!Number.isSafeInteger(value)) throw archiveError('a header in it has an impossible size');
  return value;
}

/** Octal digits, with spaces or zeros around them; undefined for anything else. */
function readOctal(field: Buffer): number | undefined {
  const digits = /^[ \0]*([0-7]*)[ \0]*$/.exec(field.toString('latin1'))?.[1];
  return digits === undefined ? undefined : Number.parseInt(digits === '' ? '0' : digits, 8);
}
