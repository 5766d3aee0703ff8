/** How a layer or a whole archive is compressed. Any other compression counts as `none`: the engine may know it. */
export type Compression = 'none' | 'gzip' | 'zstd';

export const COMPRESSION_MAGIC_LENGTH = 4;

/** RFC 1952 section 2.3.1, with deflate as the method; RFC 8878 section 3.1.1. */
const MAGIC = {
  gzip: Buffer.from([0x1f, 0x8b, 0x08]),
  zstd: Buffer.from([0x28, 0xb5, 0x2f, 0xfd]),
} as const;

/** Returns the compression of a file that begins with `firstBytes`. */
export function compressionOf(firstBytes: Buffer): Compression {
  for (const name of ['gzip', 'zstd'] as const) {
    if (firstBytes.subarray(0, MAGIC[name].length).equals(MAGIC[name])) return name;
  }
  return 'none';
}
