import { rm } from 'node:fs/promises';
import path from 'node:path';
import { isImageTag } from '../archive/manifest.ts';
import { readSmallFile } from '../files/small-file.ts';
import { makeFolder } from '../files/folders.ts';
import { DraftFile } from '../files/draft-file.ts';
import { asRecord, parseJson } from '../json.ts';
import type { UnlockedArchive } from '../binary-split/unlock-archive.ts';

const FILE_NAME = 'unlock-receipt.json';
const VERSION = 1;
const MAX_LENGTH = 4 * 1024 * 1024;
const NANOSECONDS = /^-?\d{1,20}$/;
const IV = /^[0-9a-f]{32}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

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

  /** Undefined when there is no receipt, or one that makes no sense. The unlock is then done again. */
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

/** A text that one wrong bit has changed into what the engine would refuse must not reach the engine. */
function parse(value: unknown): UnlockedArchive | undefined {
  const { version, identity, images } = asRecord(value) ?? {};
  const { length, modifiedNs, iv } = asRecord(identity) ?? {};
  const isSound =
    version === VERSION &&
    Number.isSafeInteger(length) &&
    hasForm(modifiedNs, NANOSECONDS) &&
    hasForm(iv, IV) &&
    Array.isArray(images) &&
    images.length > 0 &&
    images.every(isImage);
  return isSound ? ({ identity, images } as UnlockedArchive) : undefined;
}

function isImage(value: unknown): boolean {
  const { id, tags } = asRecord(value) ?? {};
  const areTags = Array.isArray(tags) && tags.every((tag) => typeof tag === 'string' && isImageTag(tag));
  return areTags && hasForm(id, DIGEST);
}

function hasForm(value: unknown, form: RegExp): boolean {
  return typeof value === 'string' && form.test(value);
}
