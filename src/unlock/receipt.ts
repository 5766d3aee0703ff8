import { constants } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import path from 'node:path';
import { makeFolder } from '../files/folders.ts';
import { PartFile } from '../files/draft-file.ts';
import type { LoadedArchive } from '../binary-split/unlock-archive.ts';

const FILE_NAME = 'unlock-receipt.json';
const VERSION = 1;
const MAX_LENGTH = 4 * 1024 * 1024;

/** What the last unlock brought into the engine, on disk: so that the next start knows without the archive's key. */
export class Receipt {
  readonly #folder: string;

  /** @param folder STATE_DIR; it is made when the first receipt is written */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Undefined when there is none that can be read: then the unlock is done once more. */
  async read(): Promise<LoadedArchive | undefined> {
    try {
      // A pipe with a name would keep an open that waits.
      await using file = await open(this.#path, constants.O_RDONLY | constants.O_NONBLOCK);
      const facts = await file.stat();
      if (!facts.isFile() || facts.size > MAX_LENGTH) return undefined;
      return parse(JSON.parse(await file.readFile('utf8')));
    } catch {
      return undefined;
    }
  }

  /** Writes it whole or not at all. @throws Error of the file system */
  async write(loaded: LoadedArchive): Promise<void> {
    await makeFolder(this.#folder);
    // Of one name, so that what a killed Loader left behind is found.
    const partPath = path.join(this.#folder, `.${FILE_NAME}.part`);
    await rm(partPath, { force: true });
    const file = await PartFile.create(partPath);
    try {
      await file.write(Buffer.from(JSON.stringify({ version: VERSION, ...loaded })), 0);
      await file.publish(this.#path);
    } finally {
      await file.close();
      await file.discard();
    }
  }

  get #path(): string {
    return path.join(this.#folder, FILE_NAME);
  }
}

function parse(value: unknown): LoadedArchive | undefined {
  const receipt = value as Partial<LoadedArchive & { version: number }> | null;
  const identity = receipt?.identity as Partial<LoadedArchive['identity']> | undefined;
  const images: unknown = receipt?.images;
  const isSound =
    receipt?.version === VERSION &&
    typeof identity?.length === 'number' &&
    typeof identity.modifiedNs === 'string' &&
    typeof identity.iv === 'string' &&
    Array.isArray(images) &&
    images.length > 0 &&
    images.every(isImage);
  return isSound ? (receipt as LoadedArchive) : undefined;
}

function isImage(value: unknown): boolean {
  const image = value as { id?: unknown; tags?: unknown } | null;
  return (
    typeof image?.id === 'string' && Array.isArray(image.tags) && image.tags.every((tag) => typeof tag === 'string')
  );
}
