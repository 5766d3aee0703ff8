import type { Static } from 'typebox';
import type { BigPartCache, CacheEntry, Verdict } from '../cache/big-part-cache.ts';
import { asLoaderError, hasErrorCode, LoaderError } from '../errors.ts';
import { ERROR_CODE, nullable, Type } from '../json-schemas.ts';
import type { ResourceName } from '../resource-name.ts';
import type { Prefetch } from '../resources/prefetch.ts';
import { defineProvider, PartialResultError, type Provider, type TaskContext } from '../tasks/provider.ts';

export interface VerifyProviderOptions {
  readonly cache: Pick<BigPartCache, 'list' | 'recordOf' | 'verify'>;
  readonly downloads: {
    mend(resource: ResourceName, chunks: readonly number[], signal: AbortSignal): Promise<void>;
    prefetch(resource: ResourceName, signal: AbortSignal): Promise<Pick<Prefetch, 'isCached' | 'run'>>;
  };
}

const BAD_COPY = Type.Object({
  folder: Type.String(),
  file: Type.String(),
  mended: Type.Boolean({ description: 'Whether what was bad of it was fetched again; if not, the next load does it.' }),
  error: nullable(Type.String({ description: 'Why it was not mended.' })),
  code: nullable(ERROR_CODE),
});

/** A copy that did not match its digests, as the result tells it. */
type BadCopy = Static<typeof BAD_COPY>;

const PARAMETERS = Type.Object({}, { additionalProperties: false });

const RESULT = Type.Object({
  good: Type.Integer(),
  recorded: Type.Integer({ description: 'Copies whose digests were recorded for the first time.' }),
  bad: Type.Integer(),
  unproven: Type.Integer({
    description:
      'Copies of an older Loader among the good ones. The CDN could not be asked whether both of their parts are of one version.',
  }),
  absent: Type.Integer({ description: 'Copies that disappeared in the meantime.' }),
  failed: Type.Integer({ description: 'Copies that could be neither verified nor set aside.' }),
  bytes: Type.Integer({ description: 'Bytes that were read.' }),
  bad_copies: Type.Array(BAD_COPY, { description: 'At most 1,000 of the bad ones.' }),
});

/** The result lists at most this many bad copies; it counts all of them. */
const MAX_LISTED = 1_000;

/** Checks every copy in the cache against its digests, and fetches again what does not match them. */
export function createVerifyProvider({ cache, downloads }: VerifyProviderOptions): Provider {
  return defineProvider({
    name: 'verify',
    parameters: PARAMETERS,
    result: RESULT,
    isRepeatable: true,
    run: async (_parameters, context) => {
      const { signal } = context;
      const entries: CacheEntry[] = [];
      for await (const entry of cache.list(signal)) if (entry.kind === 'copy') entries.push(entry);
      const bytesTotal = entries.reduce((sum, { length }) => sum + length, 0);
      const counts = { good: 0, recorded: 0, bad: 0, unproven: 0, absent: 0, failed: 0 };
      const bad: BadCopy[] = [];
      let bytesDone = 0;
      context.report({ bytesDone, bytesTotal });
      for (const entry of entries) {
        const outcome = await verify(entry, context, (bytes) => {
          bytesDone += bytes;
          context.report({ bytesDone, bytesTotal });
        });
        const damaged = typeof outcome === 'object' ? outcome.damaged : [];
        const verdict = typeof outcome === 'object' ? 'bad' : outcome;
        const isSound = verdict === 'good' || verdict === 'recorded';
        const pairing = isSound && !(await isPair(entry)) ? await pair(entry, context) : 'pair';
        counts[pairing === 'mended' ? 'bad' : verdict]++;
        if (pairing === 'unproven') counts.unproven++;
        if (verdict === 'bad') {
          const what = damaged.length > 0 ? `has ${damaged.length} damaged chunks` : 'is no copy: it was set aside';
          context.log('warn', `${entry.folder}/${entry.file} ${what}`);
          const copy = await mend(entry, damaged, context);
          if (bad.length < MAX_LISTED) bad.push(copy);
        } else if (pairing === 'mended' && bad.length < MAX_LISTED) {
          bad.push({ folder: entry.folder, file: entry.file, mended: true, error: null, code: null });
        }
      }
      context.log('info', `${counts.good} good, ${counts.recorded} digested for the first time, ${counts.bad} bad`);
      const result = { ...counts, bytes: bytesDone, bad_copies: bad };
      if (counts.failed === 0) return result;
      throw new PartialResultError('cache_unusable', `${counts.failed} copies could not be verified.`, result);
    },
  });

  /** Whether it is certain that a copy is of one version with its small part. */
  async function isPair(entry: Pick<CacheEntry, 'file' | 'folder'>): Promise<boolean> {
    return (await cache.recordOf(entry))?.isPair === true;
  }

  /** Returns `failed` for a copy that can be neither verified nor set aside, which must not stop the others. */
  async function verify(
    entry: CacheEntry,
    context: TaskContext,
    onBytes: (bytes: number) => void,
  ): Promise<Verdict | 'failed'> {
    const { signal } = context;
    try {
      signal.throwIfAborted();
      return await cache.verify(entry, { signal, onBytes });
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof LoaderError)) throw error;
      context.log('error', `${entry.folder}/${entry.file}: ${error.message}`);
      return 'failed';
    }
  }

  /**
   * Compares a copy that may be of another version than its small part with the CDN's object. Fetches that if it is.
   */
  async function pair(
    { folder, file, name }: CacheEntry,
    context: TaskContext,
  ): Promise<'pair' | 'mended' | 'unproven'> {
    const { signal } = context;
    if (name === undefined) return 'unproven';
    try {
      const prefetch = await downloads.prefetch({ folder, name }, signal);
      if (prefetch.isCached) return (await isPair({ folder, file })) ? 'pair' : 'unproven';
      await Array.fromAsync(prefetch.run(signal));
      context.log('warn', `${folder}/${file} was of another version than its small part: it was fetched again`);
      return 'mended';
    } catch (error) {
      signal.throwIfAborted();
      context.log('info', `${folder}/${file} could not be compared with the CDN: ${asLoaderError(error).message}`);
      return 'unproven';
    }
  }

  /** Gets the damaged chunks again, or the whole where there is no copy any more or the CDN has another version. */
  async function mend(
    { folder, file, name }: CacheEntry,
    damaged: readonly number[],
    context: TaskContext,
  ): Promise<BadCopy> {
    const { signal } = context;
    try {
      if (name === undefined)
        throw new LoaderError(
          'resource_not_in_cdn',
          'The name of its resource is not known: load it once by its name.',
        );
      if (damaged.length > 0 && (await mendChunks({ folder, name }, damaged, signal))) {
        context.log('info', `${folder}/${file} was mended: ${damaged.length} chunks`);
      } else {
        const prefetch = await downloads.prefetch({ folder, name }, signal);
        let bytes = 0;
        for await (const progress of prefetch.run(signal)) ({ bytes } = progress);
        context.log('info', `${folder}/${file} was fetched again: ${bytes} bytes`);
      }
      return { folder, file, mended: true, error: null, code: null };
    } catch (error) {
      signal.throwIfAborted();
      const failure = asLoaderError(error);
      context.log('warn', `${folder}/${file} was not mended: ${failure.message}`);
      return { folder, file, mended: false, error: failure.message, code: failure.code };
    }
  }

  /** False when the CDN has another version by now. */
  async function mendChunks(resource: ResourceName, damaged: readonly number[], signal: AbortSignal): Promise<boolean> {
    try {
      await downloads.mend(resource, damaged, signal);
      return true;
    } catch (error) {
      if (hasErrorCode(error, 'cdn_object_changed')) return false;
      throw error;
    }
  }
}
