import { archiveExists, isSameArchive, readArchiveIdentity } from '../archive/open-archive.ts';
import type { DockerEngine, EngineTraits } from '../docker/docker-engine.ts';
import type { UnlockedArchive } from '../binary-split/unlock-archive.ts';
import { readSmallFile } from '../files/small-file.ts';
import { MAX_RECEIPT_LENGTH, parseReceipt } from './receipt.ts';

export interface PresenceOptions {
  readonly engine: Pick<DockerEngine, 'findImage' | 'inspectImage'>;
  readonly archivePath: string;
  readonly receiptPath: string;
  /** Repositories whose `:apiVersion` the engine must have where there is no archive. */
  readonly serviceImages: readonly string[];
  readonly apiVersion: string;
}

/** A receipt holds the engine's own IDs, so it does not matter what they are digests of. */
const BY_ID: EngineTraits = { needsEveryLayer: false, identifiesByManifest: false };

/** Tells without the archive's key whether the release is loaded already. */
export class Presence {
  readonly #options: PresenceOptions;

  constructor(options: PresenceOptions) {
    this.#options = options;
  }

  /**
   * Tells whether each image of the archive is in the engine, under all of its tags. Only a receipt of this very
   * archive can tell that; the tags alone can't, since another release may have the same ones. Where there is no
   * archive any more, SERVICE_IMAGES decides or, if it is empty, the receipt.
   *
   * @throws LoaderError `engine_...`, `archive_unreadable` when that can't be found out
   */
  async isLoaded(signal: AbortSignal): Promise<boolean> {
    const { archivePath, serviceImages } = this.#options;
    const loaded = await this.#readReceipt();
    if (await archiveExists(archivePath)) {
      if (loaded === undefined || !isSameArchive(loaded.identity, await readArchiveIdentity(archivePath))) return false;
      return await this.#isWhole(loaded, signal);
    }
    if (serviceImages.length > 0) return await this.#hasServiceImages(signal);
    return loaded !== undefined && (await this.#isWhole(loaded, signal));
  }

  /** Undefined without a receipt, or with one that can't be read or makes no sense. The unlock is then done again. */
  async #readReceipt(): Promise<UnlockedArchive | undefined> {
    try {
      return parseReceipt((await readSmallFile(this.#options.receiptPath, MAX_RECEIPT_LENGTH)) ?? '');
    } catch {
      return undefined;
    }
  }

  async #hasServiceImages(signal: AbortSignal): Promise<boolean> {
    const { engine, serviceImages, apiVersion } = this.#options;
    for (const repository of serviceImages) {
      if ((await engine.inspectImage(`${repository}:${apiVersion}`, signal)) === undefined) return false;
    }
    return true;
  }

  async #isWhole({ images }: UnlockedArchive, signal: AbortSignal): Promise<boolean> {
    for (const image of images) {
      const wanted = { ...image, diffIds: [] };
      if ((await this.#options.engine.findImage(wanted, BY_ID, signal)) === undefined) return false;
    }
    return true;
  }
}
