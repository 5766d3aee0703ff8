import { archiveError } from './archive-error.ts';
import { archivePath } from './manifest.ts';
import type { TarEntry } from './tar-grammar.ts';

/** Where a file's data lies in the plaintext of an archive. */
export interface ArchiveFile {
  readonly start: number;
  /** Bytes. */
  readonly length: number;
}

/** No release has so many entries, and each costs a read. */
const MAX_ENTRIES = 100_000;
/** For all names together, so that no archive exhausts the memory. */
const MAX_NAMES_LENGTH = 16 * 1024 * 1024;
/** A longer chain of links is a circle. */
const MAX_LINKS = 16;

/** The names in a tar and where their data lies. It follows links. */
export class TarListing {
  readonly #entries = new Map<string, ArchiveFile & Pick<TarEntry, 'type' | 'linkName'>>();
  #namesLength = 0;

  /**
   * Adds an entry. It replaces an earlier one of the same name, as it would on disk.
   *
   * @throws LoaderError `archive_invalid`
   */
  add(entry: TarEntry, start: number): void {
    if (this.#entries.size >= MAX_ENTRIES) throw archiveError(`it has more than ${MAX_ENTRIES} entries`);
    const { type, linkName, length } = entry;
    this.#namesLength += entry.name.length + linkName.length;
    if (this.#namesLength > MAX_NAMES_LENGTH) throw archiveError('its names are too long');
    this.#entries.set(archivePath(entry.name), { start, length, type, linkName });
  }

  /** Returns the file under `path`, a canonical path. @throws LoaderError `archive_invalid` when there is none */
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
