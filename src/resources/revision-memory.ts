import { createHash } from 'node:crypto';
import path from 'node:path';
import { KeyedLock } from '../async/keyed-lock.ts';
import { LoaderError, systemErrorCode } from '../errors.ts';
import { readSmallFile, UnfitFileError, writeSmallFile } from '../files/small-file.ts';
import { asRecord, parseJson } from '../json.ts';
import type { Logger } from '../log/logger.ts';
import { resourceKey, type ResourceName } from '../resource-name.ts';

/** Which manifest of a resource it is. */
export interface Revision {
  readonly revision: number;
  /** SHA-256, hex, of the payload: tells two manifests of one revision apart. */
  readonly payloadSha256: string;
}

/** Under STATE_DIR. */
const FOLDER = 'revisions';
const MAX_LENGTH = 16 * 1024;
/** At most so many are kept in memory where the disk fails. */
const MAX_UNWRITTEN = 10_000;

/**
 * The highest revision of each resource that this device has accepted, so that nobody can bring back an older version that
 * was once signed (docs/protocol.md section 7, rule 4). One file each, in STATE_DIR.
 */
export class RevisionMemory {
  readonly #stateDir: string;
  readonly #logger: Logger;
  /** Those that the disk did not take. The others are read each time, so that one may be removed by hand. */
  readonly #unwritten = new Map<string, Revision>();
  readonly #locks = new KeyedLock();

  constructor(stateDir: string, logger: Logger) {
    this.#stateDir = stateDir;
    this.#logger = logger;
  }

  /** The highest one; undefined when none was accepted yet. It never fails: a file that can't be read is as none. */
  async highest(resource: ResourceName): Promise<Revision | undefined> {
    return this.#unwritten.get(resourceKey(resource)) ?? (await this.#read(resource));
  }

  /**
   * Accepts a revision, and keeps it when it is the highest. On return it is on the disk: nothing of the version was used
   * before. Where STATE_DIR can't be written, it is kept in memory alone, with a warning.
   *
   * @throws LoaderError `manifest_outdated` when a higher one was accepted before
   */
  async accept(resource: ResourceName, revision: Revision): Promise<void> {
    const key = resourceKey(resource);
    using _lock = await this.#locks.acquire(key);
    const highest = await this.highest(resource);
    const order = highest === undefined ? 1 : compare(revision, highest);
    if (order < 0) throw outdated(resource);
    if (order === 0) return;
    const { folder, name } = resource;
    const record = { version: 1, folder, name, ...revision, check: checkOf(revision) };
    try {
      await writeSmallFile(this.#pathOf(resource), JSON.stringify(record));
      this.#unwritten.delete(key);
    } catch (error) {
      if (this.#unwritten.size < MAX_UNWRITTEN) this.#unwritten.set(key, revision);
      this.#logger.warn({ err: error, resource }, 'The revision of a resource could not be kept in STATE_DIR');
    }
  }

  async #read(resource: ResourceName): Promise<Revision | undefined> {
    try {
      const text = await readSmallFile(this.#pathOf(resource), MAX_LENGTH);
      if (text === undefined) return undefined;
      const { revision, payloadSha256, check } = asRecord(parseJson(text)) ?? {};
      const stored = { revision: Number(revision), payloadSha256: String(payloadSha256) };
      if (checkOf(stored) === check) return stored;
      this.#logger.warn({ resource }, 'The kept revision of a resource is damaged: any is accepted now');
    } catch (error) {
      const isDamaged = error instanceof UnfitFileError || systemErrorCode(error) !== 'ENOTDIR';
      if (isDamaged) this.#logger.warn({ err: error, resource }, 'The kept revision of a resource can not be read');
    }
    return undefined;
  }

  #pathOf(resource: ResourceName): string {
    return revisionPath(this.#stateDir, resource);
  }
}

/** Of a resource's file. Its name is a digest, since names of resources may be as long as those of files. */
export function revisionPath(stateDir: string, resource: ResourceName): string {
  return path.join(stateDir, FOLDER, `${createHash('sha256').update(resourceKey(resource)).digest('hex')}.json`);
}

/** A damaged file must not refuse what is right for ever. */
function checkOf({ revision, payloadSha256 }: Revision): string {
  return createHash('sha256').update(`${revision} ${payloadSha256}`).digest('hex');
}

function compare(one: Revision, other: Revision): number {
  if (one.revision !== other.revision) return one.revision - other.revision;
  if (one.payloadSha256 === other.payloadSha256) return 0;
  return one.payloadSha256 < other.payloadSha256 ? -1 : 1;
}

function outdated(resource: ResourceName): LoaderError {
  const name = resourceKey(resource);
  return new LoaderError(
    'manifest_outdated',
    `The CDN has a manifest of ${name} that is older than the one that this device has accepted before: an earlier version was put back. Upload ${name} again; if the clock of an uploader was ahead, run loader forget ${name} on this device.`,
  );
}
