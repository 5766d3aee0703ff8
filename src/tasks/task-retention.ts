import type { Statements } from './statements.ts';

export interface TaskRetentionOptions {
  /** The number of finished tasks that are kept. */
  readonly historyCount: number;
  /** How long a finished task is kept, in ms. */
  readonly historyAgeMs: number;
}

/** Where the database holds more bytes than this, a tenth of the history is deleted: the start reads all of it. */
const MAX_DATABASE_LENGTH = 64 * 1024 * 1024;
const KEPT_SHARE = 0.9;

/** Deletes finished tasks that are too many or too old. A task whose retry is pending stays. */
export class TaskRetention {
  readonly #statements: Statements;
  readonly #options: TaskRetentionOptions;
  /** The last task of earlier processes. */
  readonly #lastSeqAtStart: number;
  /** Undefined when the finished tasks must be counted in the database. */
  #finishedCount: number | undefined;

  /** Throws SQLite's errors, as all methods do. */
  constructor(statements: Statements, options: TaskRetentionOptions) {
    this.#statements = statements;
    this.#options = options;
    this.#lastSeqAtStart = statements.number('SELECT max(seq) FROM tasks');
  }

  /** Takes note that `count` tasks have finished, within the transaction that writes their ends. */
  noteFinished(count: number): void {
    if (this.#finishedCount !== undefined) this.#finishedCount += count;
  }

  /** Counts anew at the next call of `prune`, since SQLite has rolled back the last changes. */
  recount(): void {
    this.#finishedCount = undefined;
  }

  /** Deletes what is too old at `nowMs`, then the surplus in the order in which the tasks finished, but not `keptUid`. */
  prune(nowMs: number, keptUid = ''): void {
    const { historyCount, historyAgeMs } = this.#options;
    let finishedCount =
      this.#finishedCount ?? this.#statements.number("SELECT count(*) FROM tasks WHERE status <> 'in_progress'");
    // A task of this process is never too old: the clock may have been set since it finished.
    const tooOld = this.#statements
      .prepare('DELETE FROM tasks WHERE finished_at < ? AND seq <= ? AND seq NOT IN (SELECT task FROM pending_retries)')
      .run(nowMs - historyAgeMs, this.#lastSeqAtStart);
    finishedCount -= Number(tooOld.changes);
    const isTooLarge = this.#usedLength() > MAX_DATABASE_LENGTH;
    const keptCount = Math.min(historyCount, isTooLarge ? Math.floor(finishedCount * KEPT_SHARE) : Infinity);
    if (finishedCount > keptCount) {
      const surplus = this.#statements
        .prepare(
          `DELETE FROM tasks WHERE seq IN (
             SELECT seq FROM tasks WHERE finished_at IS NOT NULL AND uid <> ?
               AND seq NOT IN (SELECT task FROM pending_retries) ORDER BY finished_at, seq LIMIT ?)`,
        )
        .run(keptUid, finishedCount - keptCount);
      finishedCount -= Number(surplus.changes);
    }
    this.#finishedCount = finishedCount;
  }

  /** The bytes of the database's pages that are in use. */
  #usedLength(): number {
    const pragma = (name: string) => this.#statements.number(`PRAGMA ${name}`);
    return (pragma('page_count') - pragma('freelist_count')) * pragma('page_size');
  }
}
