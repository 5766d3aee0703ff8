import type { EnvelopeReader } from '../security/envelope-reader.ts';
import { archiveError } from './archive-error.ts';
import { archivePath } from './manifest.ts';
import { tarGrammar, type TarEntry } from './tar-grammar.ts';

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
/** A longer chain of links is a circle. */
const MAX_LINKS = 16;
/** Headers of small files lie near each other, so one read finds several. */
const WINDOW_LENGTH = 16 * 1024;
const NOTHING = Buffer.alloc(0);

/** The names in a tar and where their data lies. It follows links. */
export class TarListing {
  readonly #entries = new Map<string, ArchiveFile & Pick<TarEntry, 'type' | 'linkName'>>();
  #namesLength = 0;

  /** The last of several entries of one name counts, as when they are unpacked. @throws LoaderError `archive_invalid` */
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
 * Lists a tar that can be read at random: header by header, without the data in between.
 *
 * @throws LoaderError `archive_invalid` for one that is broken or cut
 */
export async function listTar(archive: EnvelopeReader, signal: AbortSignal): Promise<TarListing> {
  const listing = new TarListing();
  const window = new ReadWindow(archive);
  const grammar = tarGrammar();
  let position = 0;
  for (let step = grammar.next(); step.done !== true;) {
    signal.throwIfAborted();
    const request = step.value;
    if (request.kind === 'data') listing.add(request.entry, position);
    const bytes = request.kind === 'read' ? await window.read(position, request.length) : NOTHING;
    position += request.length;
    step = grammar.next(bytes);
  }
  return listing;
}

/** Reads small pieces in ascending order, several with one read of the file. */
class ReadWindow {
  readonly #archive: EnvelopeReader;
  #start = 0;
  #bytes: Buffer = NOTHING;

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
