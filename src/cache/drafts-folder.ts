import { randomUUID } from 'node:crypto';
import { lstat, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { LoaderError, systemErrorCode } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { makeFolder } from '../files/folders.ts';
import { DraftFile } from '../files/draft-file.ts';
import { toCacheError } from './cache-error.ts';

/** Under the root. Resource folders may have this name too: their files end in .big. */
const PARTS_FOLDER = '.parts';
const PART_SUFFIX = '.part';

/** The unfinished files of the cache, and those on their way out. */
export class DraftsFolder {
  readonly #path: string;
  readonly #logger: Logger;

  constructor(root: string, logger: Logger) {
    this.#path = path.join(root, PARTS_FOLDER);
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

  /** Takes a file's name away, and answers the one that it has now; undefined when there is none. */
  async takeAway(filePath: string): Promise<string | undefined> {
    const unwanted = this.#newPath();
    try {
      if ((await lstat(filePath)).isDirectory()) {
        throw new LoaderError('cache_unusable', 'A folder of other resources stands where the copy would be.');
      }
      await rename(filePath, unwanted);
      return unwanted;
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** Nobody waits for it: to free the blocks of a large file takes long, and so does every sync meanwhile. */
  removeInBackground(unwanted: string): void {
    rm(unwanted, { force: true }).catch((error: unknown) => {
      this.#logger.warn({ err: error }, 'A replaced file of the cache could not be removed; the next start will');
    });
  }

  /** Removes what an earlier process left behind. It never throws. */
  async removeLeftovers(): Promise<void> {
    try {
      const entries = await readdir(this.#path, { withFileTypes: true });
      const leftovers = entries.filter((entry) => entry.isFile() && entry.name.endsWith(PART_SUFFIX));
      await Promise.all(leftovers.map(async (entry) => rm(path.join(this.#path, entry.name), { force: true })));
      if (leftovers.length > 0) this.#logger.info({ files: leftovers.length }, 'Removed unfinished files of the cache');
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') this.#logger.warn({ err: error }, 'The cache could not be cleaned');
    }
  }

  #newPath(): string {
    return path.join(this.#path, randomUUID() + PART_SUFFIX);
  }
}
