import type { KeyedReadWriteLock } from '../async/keyed-read-write-lock.ts';
import type { BigPartCache } from '../cache/big-part-cache.ts';
import { toError } from '../errors.ts';
import type { WorkMemory } from '../files/work-memory.ts';
import type { Logger } from '../log/logger.ts';
import { Parallelism } from '../net/parallelism.ts';
import { assertStorable, DEFAULT_FOLDER, resourceKey } from '../resource-name.ts';
import { recordOfManifest } from '../cache/copy-record.ts';
import type { UploadSession } from './publication.ts';
import type { ResourceManifests } from './resource-manifests.ts';
import { UploadDraft } from './upload-draft.ts';
import type { UploadJournal } from './upload-journal.ts';

export interface UploadServiceOptions {
  readonly upstream: { session(signal: AbortSignal): Promise<UploadSession> };
  readonly cache: Pick<BigPartCache, 'createDraft' | 'publish' | 'remove'>;
  readonly journal: UploadJournal;
  readonly manifests: ResourceManifests;
  readonly publicationLocks: KeyedReadWriteLock;
  /** Of the parts of all uploads, together with what else has a share of it. */
  readonly memory: WorkMemory;
  readonly logger: Logger;
}

/** One item of an upload. They come in any order; there is one `data`, and at most one `folder`. */
export type UploadItem =
  | { readonly kind: 'folder'; readonly folder: string }
  | { readonly kind: 'data'; readonly chunks: AsyncIterable<Buffer> };

/** Stores resources: encrypted and split as they come, small part to the API, big part to the CDN and the cache. */
export class UploadService {
  readonly #options: UploadServiceOptions;
  readonly #parallelism = new Parallelism();

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
    const { upstream, cache, journal, manifests, memory, logger } = this.#options;
    const session = await upstream.session(signal);
    session.resourceAesKey(); // Fails before the client has sent a model in vain.
    await using owned = new AsyncDisposableStack();
    let folder = DEFAULT_FOLDER;
    let draft: UploadDraft | undefined;
    for await (const item of items) {
      if (item.kind === 'folder') assertStorable({ folder: item.folder, name });
      if (item.kind === 'folder') ({ folder } = item);
      else {
        const shared = { session, cache, journal, manifests, memory, logger, signal };
        const options = { ...shared, parallelism: this.#parallelism };
        draft = owned.use(await UploadDraft.create({ folder, name }, item.chunks, options));
      }
    }
    if (draft === undefined) throw new Error('the items of an upload held no data');
    // Most clients send the file before the folder. Then the default folder was only a guess.
    if (draft.resource.folder !== folder) await draft.moveTo({ folder, name });
    await this.#publish(draft, signal);
  }

  async #publish(draft: UploadDraft, signal: AbortSignal): Promise<void> {
    using _lock = await this.#options.publicationLocks.exclusive(resourceKey(draft.resource));
    signal.throwIfAborted();
    // Side by side, since on a slow disk the flush takes as long as the rest. Both have settled before a failure is
    // thrown: it disposes of the file that is being flushed.
    const [published] = await Promise.allSettled([draft.publish(), draft.flushFile()]);
    if (published.status === 'rejected') throw toError(published.reason);
    await this.#publishToCache(draft);
  }

  /** Never fails: the resource is stored, and a failure from here on costs the copy only. */
  async #publishToCache({ resource, file, facts, manifest }: UploadDraft): Promise<void> {
    const { cache, logger } = this.#options;
    try {
      if (file === undefined) await cache.remove(resource);
      else await cache.publish(resource, file, recordOfManifest(facts, manifest));
    } catch (error) {
      logger.warn({ err: error, resource }, 'A big part was uploaded but could not be cached');
      await cache.remove(resource);
    }
  }
}
