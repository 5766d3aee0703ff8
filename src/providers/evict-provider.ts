import type { BigPartCache } from '../cache/big-part-cache.ts';
import { inOrderOfRemoval, type CacheEntry } from '../cache/cache-entry.ts';
import { LoaderError } from '../errors.ts';
import { Type } from '../json-schemas.ts';
import { defineProvider, PartialResultError, type Provider, type TaskContext } from '../tasks/provider.ts';

const PARAMETERS = Type.Object(
  {
    max_age_days: Type.Optional(
      Type.Number({ minimum: 0, description: 'Removes what was not loaded for this many days.', examples: [30] }),
    ),
    max_bytes: Type.Optional(
      Type.Integer({
        minimum: 0,
        description: 'Then removes what was loaded longest ago, until at most this many bytes are left.',
        examples: [50_000_000_000],
      }),
    ),
  },
  { minProperties: 1, additionalProperties: false },
);

const RESULT = Type.Object({
  files_removed: Type.Integer(),
  bytes_removed: Type.Integer(),
  bytes_left: Type.Integer({ description: 'Bytes that are in the cache afterwards.' }),
  files_held: Type.Integer({ description: 'Files that stayed because they are in use.' }),
  files_failed: Type.Integer({ description: 'Files that could not be removed.' }),
  removed: Type.Array(
    Type.Object({
      folder: Type.String(),
      file: Type.String(),
      bytes: Type.Integer(),
      loaded_at: Type.String({ description: 'When it was loaded last, in ISO 8601.' }),
    }),
    { description: 'At most 1,000 of the files that were removed.' },
  ),
});

const DAY_MS = 24 * 60 * 60 * 1000;
/** The result lists at most this many files; it counts all of them. */
const MAX_LISTED = 1_000;

/** Removes from the cache what was not loaded for a number of days, and the oldest files beyond a number of bytes. */
export function createEvictProvider(cache: Pick<BigPartCache, 'list' | 'removeUnlessHeld'>): Provider {
  return defineProvider({
    name: 'evict',
    parameters: PARAMETERS,
    result: RESULT,
    isRepeatable: true,
    run: async ({ max_age_days: maxAgeDays, max_bytes: maxBytes = Infinity }, context) => {
      const { signal } = context;
      const entries: CacheEntry[] = [];
      for await (const entry of cache.list(signal)) entries.push(entry);
      entries.sort(inOrderOfRemoval);
      let bytesLeft = entries.reduce((sum, { length }) => sum + length, 0);
      const oldestMs = maxAgeDays === undefined ? -Infinity : Date.now() - maxAgeDays * DAY_MS;
      const old = entries
        .filter(({ loadedAtMs }) => loadedAtMs <= oldestMs)
        .reduce((sum, entry) => sum + entry.length, 0);
      const bytesTotal = Math.max(old, bytesLeft - maxBytes, 0);
      const removed: CacheEntry[] = [];
      const counts = { held: 0, failed: 0 };
      let bytesRemoved = 0;
      for (const entry of entries) {
        if (entry.loadedAtMs > oldestMs && bytesLeft <= maxBytes) continue;
        signal.throwIfAborted();
        const outcome = await remove(entry, context);
        if (outcome === 'held' || outcome === 'failed') {
          counts[outcome]++;
          continue;
        }
        bytesLeft -= entry.length;
        if (outcome === 'absent') continue;
        removed.push(entry);
        bytesRemoved += entry.length;
        context.report({ bytesDone: bytesRemoved, bytesTotal });
      }
      context.log('info', `Removed ${removed.length} files with ${bytesRemoved} bytes; ${bytesLeft} bytes are left`);
      const result = {
        files_removed: removed.length,
        bytes_removed: bytesRemoved,
        bytes_left: bytesLeft,
        files_held: counts.held,
        files_failed: counts.failed,
        removed: removed.slice(0, MAX_LISTED).map(({ folder, file, length, loadedAtMs }) => ({
          folder,
          file,
          bytes: length,
          loaded_at: new Date(loadedAtMs).toISOString(),
        })),
      };
      if (counts.failed === 0) return result;
      throw new PartialResultError('cache_unusable', `${counts.failed} files could not be removed.`, result);
    },
  });

  /** Returns `failed` for a file that can't be removed, which must not stop the others. */
  async function remove(entry: CacheEntry, context: TaskContext): Promise<'removed' | 'held' | 'absent' | 'failed'> {
    try {
      const outcome = await cache.removeUnlessHeld(entry);
      if (outcome === 'held') context.log('info', `${entry.folder}/${entry.file} is in use: it stays`);
      return outcome;
    } catch (error) {
      if (!(error instanceof LoaderError)) throw error;
      context.log('error', `${entry.folder}/${entry.file}: ${error.message}`);
      return 'failed';
    }
  }
}
