import { realpath } from 'node:fs/promises';
import path from 'node:path';
import { LoaderError } from '../errors.ts';
import { makeOneFolder } from '../files/folders.ts';
import { isSafeFolder } from '../resource-name.ts';

/**
 * The folder of the cache's tree for a resource folder, symlinks resolved.
 *
 * @throws LoaderError `cache_unusable` when it would lie outside of `root`; the system's error when it does not exist
 * and `create` is false, or can't be created.
 */
export async function resolveFolderUnder(root: string, folder: string, create: boolean): Promise<string> {
  if (!isSafeFolder(folder)) throw new LoaderError('cache_unusable', 'The folder is not a path within the cache.');
  const realRoot = await realpath(root);
  let current = realRoot;
  // Step by step: creating the whole path at once would create folders behind a symlink before it was looked at.
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
