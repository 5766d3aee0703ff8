import { randomUUID } from 'node:crypto';
import { lstat, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { LoaderError, systemErrorCode } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import { makeFolder } from '../files/folders.ts';
import { DraftFile } from '../files/draft-file.ts';
import { toCacheError } from './cache-error.ts';

/** Under the root. A resource folder may have this name too: its files end in .big. */
const FOLDER = '.parts';
const SUFFIX = '.part';

/** The files of the cache that have no place in it yet, or none any more. */
export class DraftsFolder {
  readonly #path: string;
  readonly #logger: Logger;

  constructor(root: string, logger: Logger) {
    this.#path = path.join(root, FOLDER);
    this.#logger = logger;
  }

  /** A new, empty file. @throws LoaderError `cache_unusable` */
  async create(): Promise<DraftFile> {
    try {
      await makeFolder(this.#path);
      return await DraftFile.create(this.#newPath());
    } catch (error) {
      throw toCacheError(error, 'written');
    }
  }

  /**
   * Moves a file out of its place; the disposal removes it, and does not wait for that: to free the blocks of a large
   * file takes long, and delays every sync meanwhile.
   *
   * @returns undefined when there is no such file
   * @throws LoaderError `cache_unusable` for a folder; the system's error
   */
  async takeAway(filePath: string): Promise<Disposable | undefined> {
    const unwanted = this.#newPath();
    try {
      if ((await lstat(filePath)).isDirectory()) {
        throw new LoaderError('cache_unusable', 'A folder of other resources stands where the copy would be.');
      }
      await rename(filePath, unwanted);
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
    return {
      [Symbol.dispose]: () => {
        rm(unwanted, { force: true }).catch((error: unknown) => {
          this.#logger.warn({ err: error }, 'A replaced file of the cache could not be removed; the next start will');
        });
      },
    };
  }

  /** Removes what an earlier process left behind. It never throws. */
  async removeLeftovers(): Promise<void> {
    try {
      const entries = await readdir(this.#path, { withFileTypes: true });
      const leftovers = entries.filter((entry) => entry.isFile() && entry.name.endsWith(SUFFIX));
      await Promise.all(leftovers.map(async (entry) => rm(path.join(this.#path, entry.name), { force: true })));
      if (leftovers.length > 0) this.#logger.info({ files: leftovers.length }, 'Removed unfinished files of the cache');
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') this.#logger.warn({ err: error }, 'The cache could not be cleaned');
    }
  }

  #newPath(): string {
    return path.join(this.#path, randomUUID() + SUFFIX);
  }
}
