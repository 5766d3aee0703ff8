import { rename, rm } from 'node:fs/promises';
import { KeyedLock } from '../async/keyed-lock.ts';
import { LoaderError, systemErrorCode } from '../errors.ts';
import { makeFolder } from '../files/folders.ts';
import type { Logger } from '../log/logger.ts';
import { isSafeSegment } from '../resource-name.ts';
import { copyPaths, placeKey, type CopyPaths, type CopyPlace } from './copy-paths.ts';
import { isAt } from './open-copy.ts';
import { resolveFolderUnder } from './safe-folder.ts';

/**
 * The files of all copies. A method that changes the files of a copy, and every caller that does so, holds the copy's
 * lock meanwhile: otherwise the record of one version could stand beside the file of another.
 */
export class CopyFiles {
  readonly #root: string;
  readonly #logger: Logger;
  readonly #locks = new KeyedLock();

  constructor(root: string, logger: Logger) {
    this.#root = root;
    this.#logger = logger;
  }

  /** `using _lock = await files.lock(place)`. */
  async lock(place: CopyPlace): Promise<Disposable> {
    return await this.#locks.acquire(placeKey(place));
  }

  /** The paths of a copy's files. @throws LoaderError `cache_unusable`; the system's error when there is no such folder */
  async find(place: CopyPlace): Promise<CopyPaths> {
    assertSafe(place);
    return copyPaths(await resolveFolderUnder(this.#root, place.folder, false), place.stem);
  }

  /** The same where the folder may have to be made. @throws LoaderError `cache_unusable`; the system's error */
  async make(place: CopyPlace): Promise<CopyPaths> {
    assertSafe(place);
    await makeFolder(this.#root);
    return copyPaths(await resolveFolderUnder(this.#root, place.folder, true), place.stem);
  }

  /**
   * Moves a bad copy to its `bad` path, where the next bad one replaces it. With `inode`, only the file that has it: the
   * caller keeps that file open meanwhile, since the number could otherwise be another file's by then. It never throws.
   *
   * @returns `absent` when there is no such copy any more, `stuck` when it could not be moved and is still served
   */
  async setAside(place: CopyPlace, reason: unknown, inode?: bigint): Promise<'set_aside' | 'absent' | 'stuck'> {
    using _lock = await this.lock(place);
    try {
      const paths = await this.find(place);
      if (inode !== undefined && !(await isAt(paths.big, inode))) return 'absent';
      await rm(paths.bad, { recursive: true, force: true });
      await rename(paths.big, paths.bad);
      await removeCompanions(paths);
      this.#logger.warn({ err: reason, resource: place }, 'A bad copy in the cache was set aside');
      return 'set_aside';
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return 'absent';
      this.#logger.error({ err: error, resource: place }, 'A bad copy in the cache could not be set aside');
      return 'stuck';
    }
  }
}

/** `resolveFolderUnder` sees to the folder. */
function assertSafe({ stem }: CopyPlace): void {
  if (!isSafeSegment(stem)) throw new LoaderError('cache_unusable', 'No copy of the cache can have this name.');
}

/** Removes the record and the digests of a copy that is gone. */
export async function removeCompanions(paths: CopyPaths): Promise<void> {
  await rm(paths.digests, { force: true });
  await rm(paths.record, { force: true });
}
