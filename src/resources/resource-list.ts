import type { BigPartCache, CacheEntry } from '../cache/big-part-cache.ts';
import { readManifest } from '../manifest/sealed-manifest.ts';

/** A resource that the cache has. */
export interface CachedResource {
  readonly folder: string;
  readonly name: string;
  /** Of the plaintext; undefined where the resource has no manifest. */
  readonly bytes: number | undefined;
  /** Of the copy on the disk. */
  readonly storedBytes: number;
  /** Of the manifest that was accepted; undefined where the resource has none. */
  readonly revision: number | undefined;
  /** ms since 1970. */
  readonly loadedAtMs: number;
}

export interface ResourcePage {
  readonly resources: readonly CachedResource[];
  /** For the next page; null at the end. */
  readonly nextCursor: string | null;
}

export interface ResourceQuery {
  /** Only resources of this folder. */
  readonly folder?: string | undefined;
  /** The cursor of the page before. */
  readonly cursor?: string | undefined;
  readonly limit: number;
}

/** What the cache has, by folder and name. Copies whose name is not known are left out. */
export class ResourceList {
  readonly #cache: Pick<BigPartCache, 'list' | 'recordOf'>;

  constructor(cache: Pick<BigPartCache, 'list' | 'recordOf'>) {
    this.#cache = cache;
  }

  /** @throws the reason of `signal` */
  async page({ folder, cursor, limit }: ResourceQuery, signal: AbortSignal): Promise<ResourcePage> {
    const entries: [key: string, entry: CacheEntry][] = [];
    for await (const entry of this.#cache.list(signal)) {
      const { kind, name } = entry;
      if (kind !== 'copy' || name === undefined || (folder !== undefined && entry.folder !== folder)) continue;
      const key = `${entry.folder}/${name}`;
      if (cursor === undefined || key > cursor) entries.push([key, entry]);
    }
    entries.sort(([a], [b]) => (a < b ? -1 : 1));
    const present = entries.slice(0, limit);
    return {
      resources: await Promise.all(present.map(([, entry]) => this.#describe(entry))),
      nextCursor: entries.length > limit ? (present.at(-1)?.[0] ?? null) : null,
    };
  }

  async #describe(entry: CacheEntry): Promise<CachedResource> {
    const sealed = (await this.#cache.recordOf(entry))?.manifest;
    const manifest = sealed === undefined ? undefined : readManifest(sealed);
    const { folder, name = '', length: storedBytes, loadedAtMs } = entry;
    return { folder, name, bytes: manifest?.length, storedBytes, revision: manifest?.revision, loadedAtMs };
  }
}
