import type { EnvelopeReader } from '../security/envelope-reader.ts';
import { archiveError } from './archive-error.ts';
import { archivePath } from './manifest.ts';
import { paddedLength, TAR_BLOCK_LENGTH, TarHeaderReader, type TarEntry } from './tar-header.ts';

/** Where a file's data lies in the plaintext of an archive. */
export interface ArchiveFile {
  readonly start: number;
  /** Bytes. */
  readonly length: number;
}

/** No release has so many; each costs a read. */
const MAX_ENTRIES = 100_000;
/** Of all names together, so that no archive exhausts the memory. */
const MAX_NAMES_LENGTH = 16 * 1024 * 1024;
/** Longer chains of links are circles. */
const MAX_LINKS = 16;
/** Headers of small files lie near each other: one read finds several. */
const WINDOW_LENGTH = 16 * 1024;

/** The names in a tar and where their data lies, links followed. */
export class TarListing {
  readonly #entries = new Map<string, ArchiveFile & Pick<TarEntry, 'type' | 'linkName'>>();
  #namesLength = 0;

  /** Of several entries of one name the last counts, as when they are unpacked. @throws LoaderError `archive_invalid` */
  add(entry: TarEntry, start: number): void {
    if (this.#entries.size >= MAX_ENTRIES) throw archiveError(`it has more than ${MAX_ENTRIES} entries`);
    const { type, linkName, length } = entry;
    this.#namesLength += entry.name.length + linkName.length;
    if (this.#namesLength > MAX_NAMES_LENGTH) throw archiveError('its names are too long');
    this.#entries.set(archivePath(entry.name), { start, length, type, linkName });
  }

  /** The file under `path`, which is in its one form. @throws LoaderError `archive_invalid` when there is none */
  file(path: string): ArchiveFile {
    const file = this.find(path);
    if (file === undefined) throw archiveError(`its manifest names ${path}, which it does not hold`);
    return file;
  }

  find(path: string): ArchiveFile | undefined {
    let target = path;
    for (let links = 0; links < MAX_LINKS; links++) {
      const entry = this.#entries.get(target);
      if (entry?.type === 'file') return { start: entry.start, length: entry.length };
      if (entry?.type === 'symlink') target = archivePath(`${target}/../${entry.linkName}`);
      else if (entry?.type === 'hardlink') target = archivePath(entry.linkName);
      else return undefined;
    }
    throw archiveError('links in it lead in a circle');
  }
}

/**
 * Lists a tar at random: header by header, without the data in between.
 *
 * @throws LoaderError `archive_invalid` for one that is broken or cut
 */
export async function listTar(archive: EnvelopeReader, signal: AbortSignal): Promise<TarListing> {
  const listing = new TarListing();
  const headers = new TarHeaderReader();
  const window = new ReadWindow(archive);
  let position = 0;
  for (let zeros = 0; zeros < 2;) {
    signal.throwIfAborted();
    const step = headers.take(await window.read(position, TAR_BLOCK_LENGTH));
    position += TAR_BLOCK_LENGTH;
    zeros = step.kind === 'zeros' ? zeros + 1 : 0;
    if (step.kind === 'metadata') {
      headers.takeMetadata(await window.read(position, step.length));
      position += paddedLength(step.length);
    } else if (step.kind === 'entry') {
      listing.add(step.entry, position);
      position += paddedLength(step.entry.length);
    }
  }
  return listing;
}

/** Reads small pieces in ascending order, several with one read of the file. */
class ReadWindow {
  readonly #archive: EnvelopeReader;
  #start = 0;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(archive: EnvelopeReader) {
    this.#archive = archive;
  }

  async read(start: number, length: number): Promise<Buffer> {
    const end = start + length;
    const total = this.#archive.plaintextLength;
    if (end > total) throw archiveError('it ends before its end mark: it is cut or not complete');
    if (start < this.#start || end > this.#start + this.#bytes.length) {
      this.#bytes = await this.#archive.read(start, Math.min(total, start + Math.max(length, WINDOW_LENGTH)));
      this.#start = start;
    }
    return this.#bytes.subarray(start - this.#start, end - this.#start);
  }
}
