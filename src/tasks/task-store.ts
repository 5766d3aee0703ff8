import type { DatabaseSync, SQLOutputValue, StatementSync } from 'node:sqlite';
import type { ErrorCode } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { inTransaction, toStoreError } from './task-database.ts';
import type { Task, TaskLogLevel, TaskLogLine, TaskStatus } from './task.ts';
import type { JsonObject, JsonValue } from '../json.ts';

export interface TaskStoreOptions {
  readonly database: DatabaseSync;
  readonly logger: Logger;
  /** How many finished tasks are kept, and for how long, in ms. */
  readonly historyCount: number;
  readonly historyAgeMs: number;
}

export interface HistoryFilter {
  readonly provider?: string | undefined;
  readonly status?: TaskStatus | undefined;
  /** The `nextCursor` of the page before. */
  readonly cursor?: string | undefined;
  /** Tasks on a page. */
  readonly limit: number;
}

export interface HistoryPage {
  /** Newest first. */
  readonly tasks: readonly Task[];
  /** Null after the last page. */
  readonly nextCursor: string | null;
}

/** A page ends before its limit where parameters and results of its tasks have more characters than this. */
const MAX_PAGE_LENGTH = 1024 * 1024;

/** Where the database has more bytes than this, a tenth of the history is forgotten: the start reads all of it. */
const MAX_DATABASE_LENGTH = 256 * 1024 * 1024;
const KEPT_SHARE = 0.9;

type Row = Record<string, SQLOutputValue>;

/**
 * All tasks that ever were, and their logs. Every change is on its way to the disk when its method returns.
 *
 * A finished task never changes; nor do two tasks of a provider run at once: the database itself sees to both.
 *
 * @throws LoaderError `task_store_unavailable` from every method but `finish`, where the database can't be used
 */
export class TaskStore {
  readonly #options: TaskStoreOptions;
  readonly #statements = new Map<string, StatementSync>();
  /** Tasks whose end could not be written, on a full disk: it is, before the next change. */
  readonly #unsaved = new Map<string, { readonly task: Task; readonly retryAttempt: number | null }>();
  #finishedCount: number;
  /** The last task that was there before this process. */
  readonly #seqAtStart: number;

  constructor(options: TaskStoreOptions) {
    this.#options = options;
    this.#finishedCount = this.#read(() =>
      Number(this.#prepare("SELECT count(*) AS n FROM tasks WHERE status <> 'in_progress'").get()?.['n']),
    );
    this.#seqAtStart = this.#read(() => Number(this.#prepare('SELECT max(seq) AS n FROM tasks').get()?.['n'] ?? 0));
    this.#write(() => this.#prune(Date.now()));
  }

  insert(task: Task): void {
    this.#write(() => this.#insert(task));
  }

  saveProgress(task: Task): void {
    this.#write(() => {
      this.#prepare(
        "UPDATE tasks SET progress = ?, bytes_done = ?, bytes_total = ? WHERE uid = ? AND status = 'in_progress'",
      ).run(task.progress, task.bytesDone, task.bytesTotal, task.uid);
    });
  }

  addLine(uid: string, { line, timeMs, level, text }: TaskLogLine): void {
    this.#write(() => {
      this.#prepare(
        'INSERT INTO task_logs (task, line, time, level, text) SELECT seq, ?, ?, ?, ? FROM tasks WHERE uid = ?',
      ).run(line, timeMs, level, text, uid);
    });
  }

  /**
   * Writes the end of a task. It never fails: an end that can't be written counts all the same, and is written before
   * the next change. With `retryAttempt`, the next start is to begin it anew, as its attempt of that number.
   */
  finish(task: Task, retryAttempt: number | null): void {
    this.#unsaved.set(task.uid, { task, retryAttempt });
    try {
      this.flush();
    } catch (error) {
      this.#options.logger.error({ err: error, task: task.uid }, 'The end of a task could not be written yet');
    }
  }

  /** Writes what could not be written before. */
  flush(): void {
    this.#write(() => undefined);
  }

  /** Puts the repetition of an interrupted task in the place of its plan. */
  insertRetry(task: Task): void {
    this.#write(() => {
      this.#insert(task);
      this.#dropRetry(task.retryOf ?? '');
    });
  }

  dropRetry(uid: string): void {
    this.#write(() => this.#dropRetry(uid));
  }

  find(uid: string): Task | undefined {
    return this.#read(() => {
      const row = this.#prepare('SELECT * FROM tasks WHERE uid = ?').get(uid);
      return row === undefined ? undefined : this.#toTask(row);
    });
  }

  /** Tasks that nobody runs any more: those of a process that died. For the start. */
  unfinished(): readonly Task[] {
    return this.#read(() =>
      this.#prepare("SELECT * FROM tasks WHERE status = 'in_progress' ORDER BY seq")
        .all()
        .map((row) => this.#toTask(row)),
    );
  }

  /** Interrupted tasks that are to begin anew, as the attempt of this number. */
  pendingRetries(): readonly { readonly task: Task; readonly attempt: number }[] {
    return this.#read(() =>
      this.#prepare(
        `SELECT tasks.*, pending_retries.attempt AS next_attempt FROM tasks JOIN pending_retries ON task = seq
         ORDER BY seq`,
      )
        .all()
        .map((row) => ({ task: this.#toTask(row), attempt: Number(row['next_attempt']) })),
    );
  }

  /** The log from the line after `after` on. */
  lines(uid: string, after: number): readonly TaskLogLine[] {
    return this.#read(() =>
      this.#prepare(
        'SELECT task_logs.* FROM task_logs JOIN tasks ON task = seq WHERE uid = ? AND line > ? ORDER BY line',
      )
        .all(uid, after)
        .map((row) => ({
          line: Number(row['line']),
          timeMs: Number(row['time']),
          level: row['level'] as TaskLogLevel,
          text: String(row['text']),
        })),
    );
  }

  /** How many lines the log has. */
  lineCount(uid: string): number {
    return this.#read(() =>
      Number(
        this.#prepare('SELECT max(line) AS n FROM task_logs JOIN tasks ON task = seq WHERE uid = ?').get(uid)?.['n'] ??
          0,
      ),
    );
  }

  history({ provider, status, cursor, limit }: HistoryFilter): HistoryPage {
    return this.#read(() => {
      const conditions = ['seq < :before'];
      if (provider !== undefined) conditions.push('provider = :provider');
      // What is not saved yet has another status than the database knows.
      const isStatusKnown = status !== undefined && this.#unsaved.size === 0;
      if (isStatusKnown) conditions.push('status = :status');
      const rows = this.#prepare(`SELECT * FROM tasks WHERE ${conditions.join(' AND ')} ORDER BY seq DESC`).iterate({
        before: cursor === undefined ? Number.MAX_SAFE_INTEGER : Number(cursor),
        ...(provider === undefined ? {} : { provider }),
        ...(isStatusKnown ? { status } : {}),
      });
      const tasks: Task[] = [];
      let lastSeq: SQLOutputValue = null;
      let length = 0;
      for (const row of rows) {
        const task = this.#toTask(row);
        if (status !== undefined && task.status !== status) continue;
        length += String(row['parameters']).length + String(row['result']).length;
        if (tasks.length === limit || (tasks.length > 0 && length > MAX_PAGE_LENGTH)) {
          return { tasks, nextCursor: String(lastSeq) };
        }
        tasks.push(task);
        lastSeq = row['seq'] ?? null;
      }
      return { tasks, nextCursor: null };
    });
  }

  #insert(task: Task): void {
    this.#prepare(
      `INSERT INTO tasks (uid, provider, status, progress, bytes_done, bytes_total, parameters, result, error, code,
         attempt, retry_of, schedule_id, created_at, finished_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ).run(
      task.uid,
      task.provider,
      task.status,
      task.progress,
      task.bytesDone,
      task.bytesTotal,
      JSON.stringify(task.parameters),
      JSON.stringify(task.result),
      task.error,
      task.code,
      task.attempt,
      task.retryOf,
      task.scheduleId,
      task.createdAtMs,
      task.finishedAtMs,
    );
  }

  #saveEnd(task: Task, retryAttempt: number | null): void {
    const { changes } = this.#prepare(
      `UPDATE tasks SET status = ?, progress = ?, bytes_done = ?, bytes_total = ?, result = ?, error = ?, code = ?,
         finished_at = ? WHERE uid = ? AND status = 'in_progress'`,
    ).run(
      task.status,
      task.progress,
      task.bytesDone,
      task.bytesTotal,
      JSON.stringify(task.result),
      task.error,
      task.code,
      task.finishedAtMs,
      task.uid,
    );
    if (retryAttempt !== null && changes > 0) {
      this.#prepare('INSERT INTO pending_retries (task, attempt) SELECT seq, ? FROM tasks WHERE uid = ?').run(
        retryAttempt,
        task.uid,
      );
    }
    this.#finishedCount += Number(changes);
    this.#prune(task.finishedAtMs ?? 0, task.uid);
  }

  #dropRetry(uid: string): void {
    this.#prepare('DELETE FROM pending_retries WHERE task = (SELECT seq FROM tasks WHERE uid = ?)').run(uid);
  }

  /** Forgets finished tasks that are too many or too old, in the order of their ends; not `keptUid`, nor what is repeated. */
  #prune(nowMs: number, keptUid = ''): void {
    const { historyCount, historyAgeMs } = this.#options;
    // Those of this process are not so old, whatever the clock says: it may have been set in the meantime.
    const tooOld = this.#prepare(
      'DELETE FROM tasks WHERE finished_at < ? AND seq <= ? AND seq NOT IN (SELECT task FROM pending_retries)',
    ).run(nowMs - historyAgeMs, this.#seqAtStart);
    this.#finishedCount -= Number(tooOld.changes);
    const isTooLarge = this.#usedLength() > MAX_DATABASE_LENGTH;
    const keptCount = isTooLarge ? Math.floor(this.#finishedCount * KEPT_SHARE) : historyCount;
    const surplus = this.#finishedCount - Math.min(keptCount, historyCount);
    if (surplus <= 0) return;
    const tooMany = this.#prepare(
      `DELETE FROM tasks WHERE seq IN (
         SELECT seq FROM tasks WHERE finished_at IS NOT NULL AND uid <> ?
           AND seq NOT IN (SELECT task FROM pending_retries) ORDER BY finished_at, seq LIMIT ?)`,
    ).run(keptUid, surplus);
    this.#finishedCount -= Number(tooMany.changes);
  }

  /** Bytes of the database that hold something. */
  #usedLength(): number {
    const pragma = (name: string) => Number(this.#prepare(`PRAGMA ${name}`).get()?.[name]);
    return (pragma('page_count') - pragma('freelist_count')) * pragma('page_size');
  }

  #prepare(sql: string): StatementSync {
    const known = this.#statements.get(sql) ?? this.#options.database.prepare(sql);
    this.#statements.set(sql, known);
    return known;
  }

  #read<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw toStoreError(error);
    }
  }

  /** Changes the database as a whole or not at all; ends that are not written yet go first. */
  #write(work: () => void): void {
    const finishedCount = this.#finishedCount;
    try {
      inTransaction(this.#options.database, () => {
        for (const { task, retryAttempt } of this.#unsaved.values()) this.#saveEnd(task, retryAttempt);
        work();
      });
      this.#unsaved.clear();
    } catch (error) {
      this.#finishedCount = finishedCount;
      throw toStoreError(error);
    }
  }

  #toTask(row: Row): Task {
    const uid = String(row['uid']);
    const unsaved = this.#unsaved.get(uid);
    return unsaved?.task ?? toTask(uid, row);
  }
}

function toTask(uid: string, row: Row): Task {
  return {
    uid,
    provider: String(row['provider']),
    status: row['status'] as TaskStatus,
    progress: Number(row['progress']),
    bytesDone: Number(row['bytes_done']),
    bytesTotal: row['bytes_total'] as number | null,
    parameters: JSON.parse(String(row['parameters'])) as JsonObject,
    result: JSON.parse(String(row['result'])) as JsonValue,
    error: row['error'] as string | null,
    code: row['code'] as ErrorCode | null,
    attempt: Number(row['attempt']),
    retryOf: row['retry_of'] as string | null,
    scheduleId: row['schedule_id'] as string | null,
    createdAtMs: Number(row['created_at']),
    finishedAtMs: row['finished_at'] as number | null,
  };
}
