import { statfs } from 'node:fs/promises';
import { LoaderError } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import { inOrderOfRemoval, type CacheEntry } from './cache-entry.ts';

export interface CacheRoomOptions {
  readonly root: string;
  /** Bytes that all files of the cache may have together; undefined for as many as the disk takes. */
  readonly maxBytes: number | undefined;
  readonly list: (signal: AbortSignal) => AsyncIterable<CacheEntry>;
  readonly remove: (entry: CacheEntry) => Promise<'removed' | 'held' | 'absent'>;
  readonly logger: Logger;
}

/** Sees that there is room for a big part before it is fetched. */
export class CacheRoom {
  readonly #options: CacheRoomOptions;

  constructor(options: CacheRoomOptions) {
    this.#options = options;
  }

  /**
   * Makes room for so many bytes: removes what was loaded longest ago until the limit of the cache holds, and never what is
   * read. Then it asks the disk.
   *
   * @throws LoaderError `disk_full_ahead` when they will not fit; the reason of `signal`
   */
  async make(bytes: number, signal: AbortSignal): Promise<void> {
    const { root, maxBytes } = this.#options;
    if (maxBytes !== undefined) await this.#evict(bytes, maxBytes, signal);
    const stats = await statfs(root).catch(() => undefined); // What is wrong with the folder is told where it is used.
    if (stats === undefined) return;
    const freeBytes = stats.bavail * stats.bsize;
    if (freeBytes < bytes) {
      throw full(
        `its disk has ${mib(freeBytes)} free, and ${mib(bytes)} are needed: make room, or set CACHE_MAX_BYTES`,
      );
    }
  }

  async #evict(bytes: number, maxBytes: number, signal: AbortSignal): Promise<void> {
    const { list, remove, logger } = this.#options;
    if (bytes > maxBytes) {
      throw full(`CACHE_MAX_BYTES allows ${mib(maxBytes)}, and ${mib(bytes)} are needed: raise it`);
    }
    const entries = await Array.fromAsync(list(signal));
    let held = entries.reduce((sum, { length }) => sum + length, 0);
    for (const entry of entries.sort(inOrderOfRemoval)) {
      if (held + bytes <= maxBytes) return;
      signal.throwIfAborted();
      const outcome = await remove(entry);
      if (outcome === 'held') continue;
      held -= entry.length;
      logger.info(
        { file: `${entry.folder}/${entry.file}`, bytes: entry.length },
        'Removed from the cache to make room',
      );
    }
    if (held + bytes > maxBytes) {
      throw full(`CACHE_MAX_BYTES allows ${mib(maxBytes)}, ${mib(held)} are being read, and ${mib(bytes)} are needed`);
    }
  }
}

function full(why: string): LoaderError {
  return new LoaderError('disk_full_ahead', `The cache has no room: ${why}.`);
}

function mib(bytes: number): string {
  return `${Math.ceil(bytes / (1024 * 1024))} MiB`;
}
