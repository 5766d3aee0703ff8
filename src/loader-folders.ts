import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemErrorCode } from './errors.ts';
import { checkFolder, type FolderFacts } from './files/check-folder.ts';
import { FolderBusyError, FolderLock } from './files/folder-lock.ts';
import type { Logger } from './log/logger.ts';

export interface LoaderFoldersOptions {
  readonly modelCacheDir: string;
  readonly stateDir: string;
  /** How long a start waits for the end of another Loader that uses a folder, in ms. */
  readonly waitMs: number;
  readonly logger: Logger;
}

interface Place {
  /** Of the configuration. */
  readonly variable: string;
  readonly folder: string;
  /** One name for each kind of folder, since both may be the same. */
  readonly lockFile: string;
  /** Bytes: with less room, the start warns. */
  readonly minRoom: number;
  /** What does not work as long as the folder can't be used. */
  readonly missing: string;
}

/** What a look at a folder found. */
interface Look {
  readonly place: Place;
  /** Undefined where the folder can't be used. */
  readonly freeBytes: number | undefined;
  readonly problem: string | undefined;
}

const MIB = 1024 * 1024;
/** How long to wait between two attempts to lock a folder that another Loader uses, in ms. */
const POLL_MS = 100;
/** The same for a folder that can't be used. */
const RETRY_MS = 10_000;
/** How old a look at the folders may be, in ms. */
const LOOK_MS = 5_000;

/**
 * The two folders that this process writes to, and the locks on them: each Loader removes, when it starts, what it takes
 * for unfinished work of its own. A folder that can't be used ends no start: everything else works without it.
 */
export class LoaderFolders {
  readonly #places: readonly Place[];
  readonly #waitMs: number;
  readonly #logger: Logger;
  readonly #closing = new AbortController();
  /** They are kept here, because a lock that nothing refers to is given up. */
  readonly #locks: FolderLock[] = [];
  #looks: Promise<readonly Look[]> = Promise.resolve([]);
  #lookedAtMs = -Infinity;

  constructor({ modelCacheDir, stateDir, waitMs, logger }: LoaderFoldersOptions) {
    this.#waitMs = waitMs;
    this.#logger = logger;
    this.#places = [
      {
        variable: 'STATE_DIR',
        folder: path.resolve(stateDir),
        lockFile: 'state.lock',
        minRoom: 16 * MIB,
        missing: 'there are no tasks and schedules, no journal of uploads and no receipt of an unlock',
      },
      {
        variable: 'MODEL_CACHE_DIR',
        folder: path.resolve(modelCacheDir),
        lockFile: 'cache.lock',
        minRoom: 512 * MIB,
        missing: 'nothing is cached',
      },
    ];
  }

  /**
   * Makes, checks and locks both folders, and warns of what an operator should change. It waits for another Loader that
   * is just ending. A folder that can't be used is tried again until `close`.
   *
   * @throws Error that names the folder which another Loader uses
   */
  async open(): Promise<void> {
    const deadline = performance.now() + this.#waitMs;
    for (const place of this.#places) {
      if ((await this.#check(place)) && (await this.#lock(place, deadline))) continue;
      void this.#keepTrying(place);
    }
  }

  /** What is wrong with the folders now, in sentences that say what to do. It looks at most every five seconds. */
  async problems(): Promise<readonly string[]> {
    return (await this.#look()).flatMap(({ problem }) => problem ?? []);
  }

  /** Bytes that can still be cached; undefined where MODEL_CACHE_DIR can't be used. */
  async freeCacheBytes(): Promise<number | undefined> {
    return (await this.#look()).find(({ place }) => place.variable === 'MODEL_CACHE_DIR')?.freeBytes;
  }

  async #look(): Promise<readonly Look[]> {
    if (performance.now() - this.#lookedAtMs >= LOOK_MS) {
      this.#lookedAtMs = performance.now();
      this.#looks = Promise.all(this.#places.map(lookAt));
    }
    return await this.#looks;
  }

  /** Gives up the locks. For the end of the process. */
  close(): void {
    this.#closing.abort();
    for (const lock of this.#locks) lock[Symbol.dispose]();
  }

  /** Makes and checks a folder. False when it can't be used. */
  async #check(place: Place): Promise<boolean> {
    try {
      this.#warn(place, await checkFolder(place.folder));
      return true;
    } catch (error) {
      this.#logger.warn({ err: error, folder: place.folder }, unusable(place, error));
      return false;
    }
  }

  /** Locks a folder. False when that can't be done. @throws Error when another Loader still has it at `deadline` */
  async #lock(place: Place, deadline: number): Promise<boolean> {
    const { variable, folder } = place;
    for (let isFirst = true; ; isFirst = false) {
      try {
        await this.#tryLock(place);
        return true;
      } catch (error) {
        if (!(error instanceof FolderBusyError)) {
          const message = `${variable} (${folder}) can't be locked against other Loaders: ${remedy(place, error)}`;
          this.#logger.warn({ err: error, folder }, message);
          return false;
        }
        if (performance.now() >= deadline) throw inUse(place, error);
        if (isFirst) {
          this.#logger.warn({ folder, timeoutMs: this.#waitMs }, 'Another Loader uses a folder: waiting for its end');
        }
        await sleep(POLL_MS);
      }
    }
  }

  /** @throws as `FolderLock.take` does */
  async #tryLock({ folder, lockFile }: Place): Promise<void> {
    this.#locks.push(await FolderLock.take(folder, lockFile));
  }

  #warn({ variable, folder, minRoom }: Place, { foreignOwner, mode, isOpenToOthers, freeBytes }: FolderFacts): void {
    const warn = (message: string) => this.#logger.warn({ folder }, `${variable} (${folder}) ${message}`);
    if (foreignOwner !== undefined) {
      warn(`belongs to the user ${foreignOwner}, who can change all that is in it: chown -R ${ownId()} ${folder}`);
    }
    if (isOpenToOthers) {
      warn(`can be written by other users (mode ${mode.toString(8).padStart(4, '0')}): chmod 700 ${folder}`);
    }
    if (freeBytes < minRoom) warn(tooFull(freeBytes, minRoom));
  }

  /** Locks a folder that could not be used or locked, as soon as it can. It never rejects. */
  async #keepTrying(place: Place): Promise<void> {
    const { variable, folder } = place;
    const { signal } = this.#closing;
    let hasTold = false;
    for (;;) {
      await sleep(RETRY_MS, undefined, { signal, ref: false }).catch(() => undefined);
      if (signal.aborted) return;
      try {
        await checkFolder(folder);
        await this.#tryLock(place);
        this.#logger.info({ folder }, `${variable} can be used now`);
        return;
      } catch (error) {
        if (error instanceof FolderBusyError && !hasTold) {
          this.#logger.error({ folder }, inUse(place, error).message);
          hasTold = true;
        }
      }
    }
  }
}

async function lookAt(place: Place): Promise<Look> {
  try {
    const { freeBytes } = await checkFolder(place.folder);
    const problem = `${place.variable} (${place.folder}) ${tooFull(freeBytes, place.minRoom)}`;
    return { place, freeBytes, problem: freeBytes > 0 ? undefined : problem };
  } catch (error) {
    return { place, freeBytes: undefined, problem: unusable(place, error) };
  }
}

function unusable(place: Place, error: unknown): string {
  return `${place.variable} (${place.folder}) can't be used, so ${place.missing}: ${remedy(place, error)}`;
}

function tooFull(freeBytes: number, minRoom: number): string {
  const [free, enough] = [freeBytes, minRoom].map((bytes) => `${Math.floor(bytes / MIB)} MiB`);
  return `has room for ${free} only: make room on its disk, ${enough} at least`;
}

function inUse({ variable, folder }: Place, cause: unknown): Error {
  const remedies = `stop that one, or give each Loader a ${variable} of its own`;
  return new Error(`${variable} (${folder}) is in use by another Loader: ${remedies}`, { cause });
}

/** What to do about a folder that can't be used or locked. */
function remedy({ variable, folder }: Place, error: unknown): string {
  const code = systemErrorCode(error) ?? 'unknown reason';
  const elsewhere = `set ${variable} to another path`;
  const noRight = `the Loader's user may not write there; chown -R ${ownId()} ${folder}`;
  const full = 'its disk is full; make room';
  const known: Readonly<Record<string, string>> = {
    ENOTDIR: `it is no folder; move away what stands there, or ${elsewhere}`,
    EACCES: noRight,
    EPERM: noRight,
    EROFS: `it is read-only; mount it for writing, or ${elsewhere}`,
    ENOSPC: full,
    EDQUOT: full,
  };
  return known[code] ?? `${code}; look at its disk, or ${elsewhere}`;
}

function ownId(): string {
  return String(process.geteuid?.() ?? 'USER');
}
