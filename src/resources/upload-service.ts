import { createHash } from 'node:crypto';
import type { Session } from '../upstream/session.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { BigPartCache } from '../cache/big-part-cache.ts';
import { hasErrorCode } from '../errors.ts';
import type { Logger } from '../logger.ts';
import type { KeyedReadWriteLock } from '../async/keyed-read-write-lock.ts';
import { DEFAULT_FOLDER, resourceKey, smallPartFile, type ResourceName } from '../resource-name.ts';
import { UploadDraft } from './upload-draft.ts';
import { NEVER } from '../async/abort.ts';

export interface UploadServiceOptions {
  readonly upstream: Pick<Upstream, 'currentSession'>;
  readonly cache: BigPartCache;
  readonly publicationLocks: KeyedReadWriteLock;
  readonly logger: Logger;
}

/** What an upload consists of, in the order in which it arrives. There is one `data`, before or after the folder. */
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
   * Stores what `items` brings under `name`. Until all of it has arrived and is stored, nobody sees any of it; after a
   * failure the resource that stood there before still loads.
   *
   * @throws LoaderError, or the error of `items`
   */
  async upload(name: string, items: AsyncIterable<UploadItem>, signal: AbortSignal): Promise<void> {
    const { upstream, cache, logger } = this.#options;
    const session = upstream.currentSession();
    session.resourceAesKey(); // Fails before the client has sent a model in vain.
    let folder: string | undefined;
    let draft: UploadDraft | undefined;
    let draftFolder = DEFAULT_FOLDER;
    try {
      for await (const item of items) {
        if (item.kind === 'folder') {
          folder = item.folder;
        } else {
          draftFolder = folder ?? DEFAULT_FOLDER;
          draft = await UploadDraft.receive({ folder: draftFolder, name }, item.chunks, {
            session,
            cache,
            logger,
            signal,
          });
        }
      }
    } catch (error) {
      await draft?.discard();
      throw error;
    }
    if (draft === undefined) throw new Error('the items of an upload held no data');
    const resource = { folder: folder ?? DEFAULT_FOLDER, name };
    // Most clients send the file before the folder: then the default one was but a guess.
    if (resource.folder !== draftFolder) draft = await draft.moveTo(resource);
    await this.#publish(session, resource, draft, signal);
  }

  async #publish(session: Session, resource: ResourceName, draft: UploadDraft, signal: AbortSignal): Promise<void> {
    const { publicationLocks } = this.#options;
    try {
      using _lock = await publicationLocks.exclusive(resourceKey(resource));
      signal.throwIfAborted();
      // Side by side: on a slow disk the flush takes as long as the rest.
      await Promise.all([this.#publishUpstream(session, resource, draft), draft.flushFile()]);
      await this.#publishToCache(resource, draft);
    } catch (error) {
      await draft.discard();
      throw error;
    }
    await draft.release();
  }

  /**
   * Small part, then the CDN's Complete. From here on the client's leaving stops nothing: in between, the parts do not
   * fit each other.
   */
  async #publishUpstream(session: Session, resource: ResourceName, draft: UploadDraft): Promise<void> {
    const { logger } = this.#options;
    const { api } = session;
    const fileName = smallPartFile(resource);
    const earlierSmall = await api.fetchResource(resource.folder, fileName, NEVER).catch((error: unknown) => {
      // The first upload of this resource; or an earlier small part that nobody can read, so that it is no loss.
      if (hasErrorCode(error, 'resource_not_in_api', 'envelope_invalid')) return undefined;
      throw error;
    });
    try {
      await api.storeResource(resource.folder, fileName, draft.small, NEVER);
      await draft.upload.complete();
    } catch (error) {
      if (earlierSmall !== undefined) {
        await api.storeResource(resource.folder, fileName, earlierSmall, NEVER).catch((failure: unknown) => {
          logger.error(
            { err: failure, resource },
            'The small part that stood before could not be restored; upload again',
          );
        });
      }
      throw error;
    }
  }

  /** The resource is stored: from here on a failure costs the copy only. */
  async #publishToCache(resource: ResourceName, draft: UploadDraft): Promise<void> {
    const { cache, logger } = this.#options;
    try {
      if (draft.file === undefined) {
        await cache.remove(resource);
        return;
      }
      const smallSha256 = createHash('sha256').update(draft.small).digest('hex');
      await cache.publish(resource, draft.file, { bigLength: draft.bigLength, smallSha256 });
    } catch (error) {
      logger.warn({ err: error, resource }, 'A big part was uploaded but could not be cached');
      await cache.remove(resource);
    }
  }
}
