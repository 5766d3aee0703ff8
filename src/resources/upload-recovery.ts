import { happens, NEVER } from '../async/abort.ts';
import { Changes } from '../async/changes.ts';
import type { KeyedReadWriteLock } from '../async/keyed-read-write-lock.ts';
import { hasErrorCode } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import { resourceKey } from '../resource-name.ts';
import { endEntry } from './end-entry.ts';
import { smallPartSha256 } from './envelope-parts.ts';
import { Publication, type PartsUpload, type UploadSession } from './publication.ts';
import type { ResourceManifests } from './resource-manifests.ts';
import type { JournalEntry, PublicationRecord, UploadJournal } from './upload-journal.ts';

export interface UploadRecoveryOptions {
  readonly upstream: {
    readonly isAuthenticated: boolean;
    readonly nextLogin: Promise<unknown>;
    currentSession(): UploadSession;
  };
  readonly journal: UploadJournal;
  readonly manifests: ResourceManifests;
  readonly publicationLocks: KeyedReadWriteLock;
  readonly logger: Logger;
  /** After how long both parts of a finished upload are looked at once more, in ms. */
  readonly secondLookMs: number;
}

/** What became of the last attempt to end an upload. */
interface Attempt {
  readonly session: UploadSession;
  /** The number of attempts of this session that have failed. */
  readonly failures: number;
  /** When to try again, in ms since 1970. */
  readonly notBeforeMs: number;
}

/** Bounds of the pause after a failure, in ms. It doubles with each further one. */
const MIN_PAUSE_MS = 1_000;
const MAX_PAUSE_MS = 60_000;

/** Ends the uploads that are left in the journal, one after the other, while a user who may do so is logged in. */
export class UploadRecovery {
  readonly #options: UploadRecoveryOptions;
  readonly #attempts = new WeakMap<JournalEntry, Attempt>();
  readonly #changes = new Changes();

  constructor(options: UploadRecoveryOptions) {
    this.#options = options;
  }

  /** Works until `signal` aborts. What is left then, the next start finds in the journal. It never fails. */
  async run(signal: AbortSignal): Promise<void> {
    const { journal, upstream } = this.#options;
    await Promise.all([
      this.#tell(() => upstream.nextLogin, signal),
      this.#tell(() => journal.nextRelease, signal),
      this.#work(signal),
    ]);
  }

  async #tell(next: () => Promise<unknown>, signal: AbortSignal): Promise<void> {
    while (await happens(next(), signal)) this.#changes.announce();
  }

  async #work(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const changed = this.#changes.next;
      const pauseMs = Math.max(0, (await this.#tryAll(signal)) - Date.now());
      const pause = Number.isFinite(pauseMs) ? [AbortSignal.timeout(pauseMs)] : [];
      await happens(changed, AbortSignal.any([signal, ...pause]));
    }
  }

  /** Returns when to try the next time, in ms since 1970. */
  async #tryAll(signal: AbortSignal): Promise<number> {
    const { journal, upstream } = this.#options;
    let nextMs = Number.POSITIVE_INFINITY;
    for (const entry of journal.released) {
      if (signal.aborted || !upstream.isAuthenticated) break;
      nextMs = Math.min(nextMs, await this.#try(entry, upstream.currentSession()));
    }
    return nextMs;
  }

  /** Tries to end an upload if its time has come. Returns when to try the next time, in ms since 1970. */
  async #try(entry: JournalEntry, session: UploadSession): Promise<number> {
    const last = this.#attempts.get(entry);
    const earlier = last?.session === session ? last : undefined;
    const notBeforeMs = earlier?.notBeforeMs ?? this.#secondLookAt(entry);
    if (notBeforeMs > Date.now()) return notBeforeMs;
    const attempt = await this.#recover(entry, session, earlier?.failures ?? 0);
    this.#attempts.set(entry, attempt);
    return attempt.notBeforeMs;
  }

  /** When an upload that has just ended is looked at again. One of an earlier process is looked at now. */
  #secondLookAt({ record }: JournalEntry): number {
    const sinceMs = record.publication?.standsSinceMs ?? 0;
    const lookMs = sinceMs + this.#options.secondLookMs;
    // The clock may have been set back since.
    return sinceMs <= Date.now() ? lookMs : 0;
  }

  /** Never fails. */
  async #recover(entry: JournalEntry, session: UploadSession, failures: number): Promise<Attempt> {
    const { logger, manifests, publicationLocks } = this.#options;
    const never = Number.POSITIVE_INFINITY;
    try {
      // Loads go on beside it: it may wait long for a CDN or an API that does not answer, and they refuse what does not fit.
      using _lock = await publicationLocks.shared(resourceKey(entry.record), NEVER);
      const hasEnded = await endUpload(entry, { session, manifests, logger });
      if (!hasEnded) {
        logger.info({ resource: entry.record.name }, 'An upload that was broken off waits for the user who began it');
      }
      return { session, failures: 0, notBeforeMs: never };
    } catch (error) {
      const level = failures === 0 ? 'warn' : 'debug';
      logger[level](
        { err: error, resource: entry.record.name },
        'An upload that was broken off could not be ended yet',
      );
      const pauseMs = Math.min(MAX_PAUSE_MS, MIN_PAUSE_MS * 2 ** failures);
      return { session, failures: failures + 1, notBeforeMs: Date.now() + pauseMs };
    }
  }
}

interface EndOptions {
  readonly session: UploadSession;
  readonly manifests: ResourceManifests;
  readonly logger: Logger;
}

/**
 * Ends an upload that was left in the journal: completes it when its small part stands at the Resource API, and removes
 * it otherwise.
 *
 * @returns false when the entry stays, since it was made for another user, who must log in
 * @throws LoaderError when the entry stays and another try may succeed
 */
async function endUpload(entry: JournalEntry, { session, manifests, logger }: EndOptions): Promise<boolean> {
  const { folder, name, target, publication } = entry.record;
  const resource = { folder, name };
  const { cdn } = session;
  if (target === undefined) {
    await endEntry(entry, cdn);
    return true;
  }
  const upload = cdn.resumeUpload(target, publication?.parts ?? []);
  if (publication === undefined) {
    await upload.abort();
    await endEntry(entry, cdn);
    return true;
  }
  const left = new Publication({ session, upload, entry, manifests, logger });
  const small = left.decrypt(publication.small, publication.smallSha256);
  if (small === undefined) return false;
  if (
    !(await left.hasObjectOf(publication)) &&
    !(await completeLate(left, publication, { upload, entry, cdn, logger }))
  )
    return true;
  try {
    await left.lookAtBoth(small, publication);
  } catch (error) {
    if (!hasErrorCode(error, 'upload_superseded')) throw error;
    logger.info({ resource }, 'Another upload has taken the place of an upload');
  }
  await endEntry(entry, cdn);
  return true;
}

interface LeftUpload {
  readonly upload: PartsUpload;
  readonly entry: JournalEntry;
  readonly cdn: UploadSession['cdn'];
  readonly logger: Logger;
}

/** Completes an upload that was broken off between its two parts. Returns false when it never will be. */
async function completeLate(
  left: Publication,
  publication: PublicationRecord,
  { upload, entry, cdn, logger }: LeftUpload,
): Promise<boolean> {
  const { folder, name } = entry.record;
  const resource = { folder, name };
  if (publication.standsSinceMs !== undefined) {
    await endEntry(entry, cdn); // Another upload has replaced it since.
    return false;
  }
  const present = await left.fetchSmall();
  if (present === undefined || smallPartSha256(present) !== publication.smallSha256) {
    await upload.abort(); // Its small part was not stored, or another upload has replaced that.
    await endEntry(entry, cdn);
    return false;
  }
  try {
    await upload.complete();
  } catch (error) {
    const earlier = left.decrypt(publication.earlier, publication.earlierSha256);
    if (!(await left.standsAfterFailure(publication, earlier))) {
      logger.warn({ err: error, resource }, 'An upload that was broken off was taken back');
      return false;
    }
  }
  logger.info({ resource }, 'An upload that was broken off was completed');
  return true;
}
