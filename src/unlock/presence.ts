import { isSameArchive, readArchiveIdentity } from '../archive/open-archive.ts';
import type { DockerEngine, EngineTraits } from '../docker/docker-engine.ts';
import { hasErrorCode } from '../errors.ts';
import type { UnlockedArchive } from '../binary-split/unlock-archive.ts';
import type { Receipt } from './receipt.ts';

export interface PresenceOptions {
  readonly engine: Pick<DockerEngine, 'findImage' | 'inspectImage'>;
  readonly receipt: Pick<Receipt, 'read'>;
  readonly archivePath: string;
  /** Repositories whose `:apiVersion` the engine must have. Where none are named, the receipt tells. */
  readonly serviceImages: readonly string[];
  readonly apiVersion: string;
}

/** A receipt has the engine's own IDs, whatever they are digests of. */
const BY_ID: EngineTraits = { needsEveryLayer: false, identifiesByManifest: false };

/** Tells without the archive's key whether the release is loaded already. */
export class Presence {
  readonly #options: PresenceOptions;

  constructor(options: PresenceOptions) {
    this.#options = options;
  }

  /** @throws LoaderError `engine_...`, `archive_unreadable` when it can't be told */
  async isLoaded(signal: AbortSignal): Promise<boolean> {
    const { engine, serviceImages, apiVersion, receipt } = this.#options;
    if (serviceImages.length > 0) {
      for (const repository of serviceImages) {
        if ((await engine.inspectImage(`${repository}:${apiVersion}`, signal)) === undefined) return false;
      }
    }
    const loaded = await receipt.read();
    if (loaded === undefined) return serviceImages.length > 0;
    // The images of another release may have the same tags.
    if (!(await this.#isOfThisArchive(loaded))) return false;
    return serviceImages.length > 0 || (await this.#isWhole(loaded, signal));
  }

  /** A receipt counts also where there is no archive: many users remove the archive when it is loaded. */
  async #isOfThisArchive({ identity }: UnlockedArchive): Promise<boolean> {
    try {
      return isSameArchive(identity, await readArchiveIdentity(this.#options.archivePath));
    } catch (error) {
      if (hasErrorCode(error, 'archive_not_found')) return true;
      throw error;
    }
  }

  async #isWhole({ images }: UnlockedArchive, signal: AbortSignal): Promise<boolean> {
    for (const image of images) {
      const wanted = { ...image, diffIds: [] };
      if ((await this.#options.engine.findImage(wanted, BY_ID, signal)) === undefined) return false;
    }
    return true;
  }
}
