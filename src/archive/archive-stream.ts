import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { LoaderError } from '../errors.ts';
import { EndOfFileError } from '../files/file-chunks.ts';
import { archiveError } from './archive-error.ts';
import type { OpenArchive } from './open-archive.ts';
import { TarObserver } from './tar-observer.ts';
import type { WantedImage } from './archive-images.ts';

export interface ArchiveStreamOptions {
  /** Bytes of the compressed archive that were read. */
  readonly onBytes: (length: number) => void;
  /** Called before the end of the tar is given away: from then on, it can't be taken back. */
  readonly onEnd: () => void;
  readonly signal: AbortSignal;
}

const CHUNK_LENGTH = 128 * 1024;

/**
 * The tar of an archive that is compressed as a whole. It can't be read at random: all of it streams into the engine,
 * but for its end, which follows when every layer was found to match its digest.
 */
export class ArchiveStream {
  readonly #archive: OpenArchive;
  #images: readonly WantedImage[] = [];

  constructor(archive: OpenArchive) {
    this.#archive = archive;
  }

  /** What it holds; known when all of it was streamed. */
  get images(): readonly WantedImage[] {
    return this.#images;
  }

  /** The tar, decompressed. @throws LoaderError `archive_invalid`, or the reason of the signal */
  async *chunks({ onBytes, onEnd, signal }: ArchiveStreamOptions): AsyncGenerator<Buffer, void, undefined> {
    const observer = new TarObserver();
    const held: Buffer[] = [];
    for await (const chunk of this.#decompress(onBytes, signal)) {
      const wasEnding = observer.isEnding;
      observer.take(chunk);
      if (!observer.isEnding) {
        yield* held.splice(0);
        yield chunk;
      } else if (!wasEnding || held.length < MAX_HELD_CHUNKS) {
        // What follows the end mark is padding; of that, no more than this is sent on.
        held.push(chunk);
      }
    }
    this.#images = observer.end();
    signal.throwIfAborted();
    onEnd();
    yield* held;
  }

  async *#decompress(onBytes: (length: number) => void, signal: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
    const { reader, compression } = this.#archive;
    const options = { chunkSize: CHUNK_LENGTH };
    const decompressor = compression === 'zstd' ? createZstdDecompress(options) : createGunzip(options);
    const encrypted = async function* () {
      for await (const chunk of reader.stream(0, reader.plaintextLength)) {
        onBytes(chunk.length);
        yield chunk;
      }
    };
    const pumping = pipeline(encrypted(), decompressor, { signal });
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
}

const MAX_HELD_CHUNKS = 4;
