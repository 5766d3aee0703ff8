import { createHash } from 'node:crypto';

/**
 * Bytes of a chunk in the manifests that this Loader makes. An S3 upload has at most 78 GiB, whose manifest then has 3.6 MB
 * and thus still fits (docs/protocol.md section 7); smaller chunks cost less to mend, and the first byte of a load comes
 * earlier.
 */
export const CHUNK_LENGTH = 2 * 1024 * 1024;

/** Makes the digests of a big part's chunks as its bytes come. */
export class ChunkDigester {
  readonly #digests: string[] = [];
  #hash = createHash('sha256');
  #filled = 0;
  #length = 0;

  /** Bytes that were pushed. */
  get length(): number {
    return this.#length;
  }

  push(bytes: Buffer): void {
    this.#length += bytes.length;
    for (let start = 0; start < bytes.length;) {
      const end = Math.min(bytes.length, start + CHUNK_LENGTH - this.#filled);
      this.#hash.update(bytes.subarray(start, end));
      this.#filled += end - start;
      start = end;
      if (this.#filled === CHUNK_LENGTH) this.#cut();
    }
  }

  /** SHA-256, hex, of each chunk; the last one may be shorter. For once. */
  end(): readonly string[] {
    if (this.#filled > 0) this.#cut();
    return this.#digests;
  }

  #cut(): void {
    this.#digests.push(this.#hash.digest('hex'));
    this.#hash = createHash('sha256');
    this.#filled = 0;
  }
}
