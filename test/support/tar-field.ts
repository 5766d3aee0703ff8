import { TAR_BLOCK_LENGTH } from '../../src/archive/tar-header.ts';

/** A tar header whose field at `offset` was overwritten; its checksum is right. */
export function withField(block: Buffer, offset: number, value: string | Buffer): Buffer {
  const header = Buffer.from(block.subarray(0, TAR_BLOCK_LENGTH));
  (typeof value === 'string' ? Buffer.from(value, 'latin1') : value).copy(header, offset);
  header.fill(' ', 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return header;
}
