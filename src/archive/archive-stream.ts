import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { LoaderError } from '../errors.ts';
import { EndOfFileError } from '../files/file-chunks.ts';
import { archiveError } from './archive-error.ts';
import type { WantedImage } from './archive-images.ts';
import type { OpenArchive } from './open-archive.ts';
import { StreamedTar } from './streamed-tar.ts';

const CHUNK_LENGTH = 128 * 1024;
/** Padding follows the end mark. At most this many chunks of it are sent on. */
const MAX_END_CHUNKS = 4;

/**
 * The tar of an archive that is compressed as a whole. It can't be read at random, so all of it streams into the
 * engine. `body` comes first, and stops before the end of the tar. `end` follows when `body` has found every layer
 * right.
 */
export class ArchiveStream {
  readonly #archive: OpenArchive;
  #images: readonly WantedImage[] = [];
  #end: readonly Buffer[] = [];
  #bytesRead = 0;

  constructor(archive: OpenArchive) {
    this.#archive = archive;
  }

  /** Bytes of the compressed archive that have been read so far. */
  get bytesRead(): number {
    return this.#bytesRead;
  }

  /** What the archive holds. Empty until `body` has succeeded. */
  get images(): readonly WantedImage[] {
    return this.#images;
  }

  /** The end of the tar. An engine that has got it considers the tar complete. Empty until `body` has succeeded. */
  get end(): readonly Buffer[] {
    return this.#end;
  }

  /**
   * The tar without its end, decompressed.
   *
   * @throws LoaderError `archive_invalid`, EndOfFileError, the signal's reason
   */
  async *body(signal: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
    const tar = new StreamedTar();
    const held: Buffer[] = [];
    for await (const chunk of this.#decompress(signal)) {
      const wasEnding = tar.isEnding;
      tar.take(chunk);
      if (!tar.isEnding) {
        yield* held.splice(0);
        yield chunk;
      } else if (!wasEnding || held.length < MAX_END_CHUNKS) {
        held.push(chunk);
      }
    }
    this.#images = tar.images();
    this.#end = held;
  }

  async *#decompress(signal: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
    const options = { chunkSize: CHUNK_LENGTH };
    const decompressor = this.#archive.compression === 'zstd' ? createZstdDecompress(options) : createGunzip(options);
    const pumping = pipeline(this.#compressed(), decompressor, { signal });
    pumping.catch(() => undefined); // Awaited below.
    try {
      yield* decompressor as AsyncIterable<Buffer>;
      await pumping;
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof LoaderError || error instanceof EndOfFileError) throw error;
      throw archiveError("it can't be decompressed", { cause: error });
    } finally {
      decompressor.destroy();
      await pumping.catch(() => undefined);
    }
  }

  async *#compressed(): AsyncGenerator<Buffer, void, undefined> {
    const { reader } = this.#archive;
    for await (const chunk of reader.stream(0, reader.plaintextLength)) {
      this.#bytesRead += chunk.length;
      yield chunk;
    }
  }
}
