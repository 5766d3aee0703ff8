import { createHash } from 'node:crypto';
import { NEVER } from '../async/abort.ts';
import type { KeyedReadWriteLock } from '../async/keyed-read-write-lock.ts';
import type { BigPartCache } from '../cache/big-part-cache.ts';
import { hasErrorCode, toError } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import { DEFAULT_FOLDER, resourceKey, smallPartFile, type ResourceName } from '../resource-name.ts';
import { UploadDraft, type UploadSession } from './upload-draft.ts';

export interface UploadServiceOptions {
  readonly upstream: { currentSession(): UploadSession };
  readonly cache: Pick<BigPartCache, 'createDraft' | 'publish' | 'remove'>;
  readonly publicationLocks: KeyedReadWriteLock;
  readonly logger: Logger;
}

/** One item of an upload. They come in any order; there is one `data`, and at most one `folder`. */
export type UploadItem =
  | { readonly kind: 'folder'; readonly folder: string }
  | { readonly kind: 'data'; readonly chunks: AsyncIterable<Buffer> };

/** Stores resources: encrypted and split as they come, small part to the API, big part to the CDN and the cache. */
export class UploadService {
  readonly #options: UploadServiceOptions;

  constructor(options: UploadServiceOptions) {
    this.#options = options;
  }

  /**
   * Stores what `items` brings under `name`. No client sees any of it until all of it has arrived and is stored. After a
   * failure the earlier resource of that name still loads.
   *
   * @throws LoaderError, or the error of `items`
   */
  async upload(name: string, items: AsyncIterable<UploadItem>, signal: AbortSignal): Promise<void> {
    const { upstream, cache, logger } = this.#options;
    const session = upstream.currentSession();
    session.resourceAesKey(); // Fails before the client has sent a model in vain.
    await using owned = new AsyncDisposableStack();
    let folder = DEFAULT_FOLDER;
    let draft: UploadDraft | undefined;
    for await (const item of items) {
      if (item.kind === 'folder') ({ folder } = item);
      else
        draft = owned.use(await UploadDraft.create({ folder, name }, item.chunks, { session, cache, logger, signal }));
    }
    if (draft === undefined) throw new Error('the items of an upload held no data');
    // Most clients send the file before the folder. Then the default folder was only a guess.
    if (draft.resource.folder !== folder) await draft.moveTo({ folder, name });
    await this.#publish(session, draft, signal);
  }

  async #publish(session: UploadSession, draft: UploadDraft, signal: AbortSignal): Promise<void> {
    using _lock = await this.#options.publicationLocks.exclusive(resourceKey(draft.resource));
    signal.throwIfAborted();
    // Side by side, since on a slow disk the flush takes as long as the rest. Both have settled before a failure is
    // thrown: it disposes of the file that is being flushed.
    const [published] = await Promise.allSettled([this.#publishUpstream(session, draft), draft.flushFile()]);
    if (published.status === 'rejected') throw toError(published.reason);
    await this.#publishToCache(draft);
  }

  /**
   * Stores the small part, then completes the big one. A client that leaves from here on stops nothing: half-way, the
   * parts do not fit each other.
   */
  async #publishUpstream({ api }: UploadSession, draft: UploadDraft): Promise<void> {
    const { folder } = draft.resource;
    const fileName = smallPartFile(draft.resource);
    const earlierSmall = await fetchEarlierSmall(api, draft.resource);
    try {
      await api.storeResource(folder, fileName, draft.small, NEVER);
      await draft.complete();
    } catch (error) {
      if (earlierSmall !== undefined) await this.#restore(api, draft.resource, earlierSmall);
      throw error;
    }
  }

  /** Never fails: the failure of the upload is the one to be told. */
  async #restore(api: UploadSession['api'], resource: ResourceName, small: Buffer): Promise<void> {
    try {
      await api.storeResource(resource.folder, smallPartFile(resource), small, NEVER);
    } catch (error) {
      this.#options.logger.error(
        { err: error, resource },
        'The earlier small part could not be restored: upload the resource again',
      );
    }
  }

  /** Never fails: the resource is stored, and a failure from here on costs the copy only. */
  async #publishToCache({ resource, file, small, bigLength }: UploadDraft): Promise<void> {
    const { cache, logger } = this.#options;
    try {
      if (file === undefined) {
        await cache.remove(resource);
        return;
      }
      const smallSha256 = createHash('sha256').update(small).digest('hex');
      await cache.publish(resource, file, { bigLength, smallSha256 });
    } catch (error) {
      logger.warn({ err: error, resource }, 'A big part was uploaded but could not be cached');
      await cache.remove(resource);
    }
  }
}

/** The small part that the upload replaces. Undefined at the first upload, and when the part can't be read anyway. */
async function fetchEarlierSmall(api: UploadSession['api'], resource: ResourceName): Promise<Buffer | undefined> {
  try {
    return await api.fetchResource(resource.folder, smallPartFile(resource), NEVER);
  } catch (error) {
    if (hasErrorCode(error, 'resource_not_in_api', 'envelope_invalid')) return undefined;
    throw error;
  }
}
