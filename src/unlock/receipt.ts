import { rm } from 'node:fs/promises';
import path from 'node:path';
import { readSmallFile } from '../files/small-file.ts';
import { makeFolder } from '../files/folders.ts';
import { DraftFile } from '../files/draft-file.ts';
import { parseJson } from '../json.ts';
import type { UnlockedArchive } from '../binary-split/unlock-archive.ts';

const FILE_NAME = 'unlock-receipt.json';
const VERSION = 1;
const MAX_LENGTH = 4 * 1024 * 1024;

/**
 * What the last unlock brought into the engine. It is on disk, so that the next start knows it without the archive's
 * key.
 */
export class Receipt {
  readonly #folder: string;

  /** @param folder STATE_DIR; it is made when the first receipt is written */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Undefined when no receipt can be read. The unlock is then done again. */
  async read(): Promise<UnlockedArchive | undefined> {
    try {
      const text = await readSmallFile(this.#path, MAX_LENGTH);
      return text === undefined ? undefined : parse(parseJson(text));
    } catch {
      return undefined;
    }
  }

  /** Writes it whole or not at all. @throws Error of the file system */
  async write(loaded: UnlockedArchive): Promise<void> {
    await makeFolder(this.#folder);
    // It always has the same name, so that the next write finds and removes what a killed Loader left.
    const partPath = path.join(this.#folder, `.${FILE_NAME}.part`);
    await rm(partPath, { force: true });
    await using file = await DraftFile.create(partPath);
    await file.write(Buffer.from(JSON.stringify({ version: VERSION, ...loaded })), 0);
    await file.publish(this.#path);
  }

  get #path(): string {
    return path.join(this.#folder, FILE_NAME);
  }
}

function parse(value: unknown): UnlockedArchive | undefined {
  const receipt = value as Partial<UnlockedArchive & { version: number }> | null | undefined;
  const identity = receipt?.identity as Partial<UnlockedArchive['identity']> | undefined;
  const images: unknown = receipt?.images;
  const isSound =
    receipt?.version === VERSION &&
    typeof identity?.length === 'number' &&
    typeof identity.modifiedNs === 'string' &&
    typeof identity.iv === 'string' &&
    Array.isArray(images) &&
    images.length > 0 &&
    images.every(isImage);
  return isSound ? (receipt as UnlockedArchive) : undefined;
}

function isImage(value: unknown): boolean {
  const image = value as { id?: unknown; tags?: unknown } | null;
  return (
    typeof image?.id === 'string' && Array.isArray(image.tags) && image.tags.every((tag) => typeof tag === 'string')
  );
}
