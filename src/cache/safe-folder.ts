import { realpath } from 'node:fs/promises';
import path from 'node:path';
import { LoaderError } from '../errors.ts';
import { makeOneFolder } from '../files/folders.ts';
import { isSafeFolder } from '../resource-name.ts';

/**
 * The path under `root` of a resource folder, with symbolic links resolved.
 *
 * @throws LoaderError `cache_unusable` when it would lie outside of `root`; the system's error when it can't be created,
 * or when it does not exist and `create` is false
 */
export async function resolveFolderUnder(root: string, folder: string, create: boolean): Promise<string> {
  if (!isSafeFolder(folder)) throw new LoaderError('cache_unusable', 'The folder is not a path within the cache.');
  const realRoot = await realpath(root);
  let current = realRoot;
  // Segment by segment: to create the whole path at once would create folders behind a symbolic link unseen.
  for (const segment of folder.split('/')) {
    const next = path.join(current, segment);
    if (create) await makeOneFolder(next);
    current = await realpath(next);
    if (current !== realRoot && !current.startsWith(realRoot + path.sep)) {
      throw new LoaderError('cache_unusable', 'A symbolic link in the cache points out of it.');
    }
  }
  return current;
}
