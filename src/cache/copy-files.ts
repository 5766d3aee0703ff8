import { lstat, realpath, rename, rm, unlink } from 'node:fs/promises';
import path from 'node:path';
import { KeyedLock } from '../async/keyed-lock.ts';
import { LoaderError, systemErrorCode } from '../errors.ts';
import { makeFolder, makeOneFolder } from '../files/folders.ts';
import type { Logger } from '../log/logger.ts';
import { isSafeFolder, isSafeSegment } from '../resource-name.ts';
import { copyPaths, placeKey, type CopyPaths, type CopyPlace } from './copy-paths.ts';
import { isAt } from './open-copy.ts';

/**
 * The files of all copies: where they are, who reads them, and who changes them. A method that changes the files of a
 * copy, and every caller that does so, holds the copy's lock meanwhile: otherwise the record of one version could stand
 * beside the file of another.
 */
export class CopyFiles {
  readonly #root: string;
  readonly #logger: Logger;
  readonly #locks = new KeyedLock();
  /** The number of readers of each copy that has any. */
  readonly #readers = new Map<string, number>();

  constructor(root: string, logger: Logger) {
    this.#root = root;
    this.#logger = logger;
  }

  /** `using _lock = await files.lock(place)`. */
  async lock(place: CopyPlace): Promise<Disposable> {
    return await this.#locks.acquire(placeKey(place));
  }

  /** Counts one reader of a copy until the disposal: `using _hold = files.hold(place)`. */
  hold(place: CopyPlace): Disposable {
    const key = placeKey(place);
    this.#readers.set(key, (this.#readers.get(key) ?? 0) + 1);
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        const others = (this.#readers.get(key) ?? 0) - 1;
        if (others > 0) this.#readers.set(key, others);
        else this.#readers.delete(key);
      },
    };
  }

  /** Whether a copy has readers, so that it must stay. */
  isHeld(place: CopyPlace): boolean {
    return this.#readers.has(placeKey(place));
  }

  /** The paths of a copy's files. @throws LoaderError `cache_unusable`; the system's error when there is no such folder */
  async find(place: CopyPlace): Promise<CopyPaths> {
    assertSafe(place);
    return copyPaths(await resolveFolder(this.#root, place.folder, false), place.stem);
  }

  /** The same where the folder may have to be made. @throws LoaderError `cache_unusable`; the system's error */
  async make(place: CopyPlace): Promise<CopyPaths> {
    assertSafe(place);
    await makeFolder(this.#root);
    return copyPaths(await resolveFolder(this.#root, place.folder, true), place.stem);
  }

  /**
   * Moves a bad copy to its `bad` path, where the next bad one replaces it. A folder is never moved or removed: it may be
   * that of other resources. Where one stands at the `bad` path, the bad copy is removed. With `inode`, only the file that has it: the
   * caller keeps that file open meanwhile, since the number could otherwise be another file's by then. It never throws.
   *
   * @returns `absent` when there is no such copy any more, `stuck` when it could not be moved and is still served
   */
  async setAside(place: CopyPlace, reason: unknown, inode?: bigint): Promise<'set_aside' | 'absent' | 'stuck'> {
    using _lock = await this.lock(place);
    try {
      const paths = await this.find(place);
      if (inode !== undefined && !(await isAt(paths.big, inode))) return 'absent';
      if ((await lstat(paths.big)).isDirectory()) return 'absent';
      if (await isFolder(paths.bad)) await unlink(paths.big);
      else await rename(paths.big, paths.bad);
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

/** `resolveFolder` sees to the folder. */
function assertSafe({ stem }: CopyPlace): void {
  if (!isSafeSegment(stem)) throw new LoaderError('cache_unusable', 'No copy of the cache can have this name.');
}

/**
 * The path of a folder under `root`, with symbolic links resolved.
 *
 * @throws LoaderError `cache_unusable` when it would lie outside of `root`; the system's error when it can't be made, or
 * when there is no such folder and `make` is false
 */
async function resolveFolder(root: string, folder: string, make: boolean): Promise<string> {
  if (!isSafeFolder(folder)) throw new LoaderError('cache_unusable', 'The folder is not a path within the cache.');
  const realRoot = await realpath(root);
  let current = realRoot;
  // Segment by segment: to make the whole path at once would make folders behind a symbolic link unseen.
  for (const segment of folder.split('/')) {
    const next = path.join(current, segment);
    if (make) await makeOneFolder(next);
    current = await realpath(next);
    if (current !== realRoot && !current.startsWith(realRoot + path.sep)) {
      throw new LoaderError('cache_unusable', 'A symbolic link in the cache points out of it.');
    }
  }
  return current;
}

async function isFolder(filePath: string): Promise<boolean> {
  const stats = await lstat(filePath).catch(() => undefined);
  return stats?.isDirectory() ?? false;
}

/** Removes the record and the digests of a copy that is gone. */
export async function removeCompanions(paths: CopyPaths): Promise<void> {
  await rm(paths.digests, { force: true });
  await rm(paths.record, { force: true });
}
