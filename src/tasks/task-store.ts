import type { DatabaseSync, SQLOutputValue } from 'node:sqlite';
import type { Logger } from '../log/logger.ts';
import { Statements } from './statements.ts';
import { DamageAlarm } from './damage-alarm.ts';
import { DamagedRows } from './damaged-rows.ts';
import type { Row } from './row.ts';
import { TaskRetention, type TaskRetentionOptions } from './task-retention.ts';
import { MAX_LINE_NUMBER, readLogLine, readTask, TASK_COLUMNS, toTaskRow } from './task-row.ts';
import type { Task, TaskLogLine, TaskStatus } from './task.ts';
import { inTransaction } from './transaction.ts';

export interface TaskStoreOptions extends TaskRetentionOptions {
  readonly database: DatabaseSync;
  readonly logger: Logger;
}

export interface HistoryFilter {
  readonly provider?: string | undefined;
  readonly status?: TaskStatus | undefined;
  /** The `nextCursor` of the page before. */
  readonly cursor?: string | undefined;
  /** The greatest number of tasks on a page. */
  readonly limit: number;
}

export interface HistoryPage {
  /** Newest first. */
  readonly tasks: readonly Task[];
  /** Null after the last page. */
  readonly nextCursor: string | null;
}

/** The end of a task that the database does not have yet. */
interface UnsavedEnd {
  readonly task: Task;
  readonly retryAttempt: number | null;
}

/** A page ends before its limit where the parameters and results of its tasks have more characters than this. */
const MAX_PAGE_LENGTH = 1024 * 1024;

/**
 * Keeps tasks and their logs in the database. When a method returns, its change survives the death of the process.
 *
 * The database itself guards two rules: a finished task never changes, and a provider has at most one task in progress.
 *
 * @throws LoaderError `task_store_unavailable` from every method but `finish`, where the database can't be used
 */
export class TaskStore {
  readonly #database: DatabaseSync;
  readonly #logger: Logger;
  readonly #statements: Statements;
  readonly #retention: TaskRetention;
  readonly #damagedRows: DamagedRows;
  readonly #alarm = new DamageAlarm();
  /** By uid: on a full disk, an end waits here for the next change. */
  readonly #unsaved = new Map<string, UnsavedEnd>();

  constructor({ database, logger, historyCount, historyAgeMs }: TaskStoreOptions) {
    this.#database = database;
    this.#logger = logger;
    this.#statements = new Statements(database);
    this.#damagedRows = new DamagedRows(logger);
    this.#retention = this.#alarm.guard(() => new TaskRetention(this.#statements, { historyCount, historyAgeMs }));
    this.#write(() => this.#retention.prune(Date.now()));
  }

  /** Resolves when the database turns out to be damaged. */
  get damaged(): Promise<undefined> {
    return this.#alarm.found;
  }

  insert(task: Task): void {
    this.#write(() => this.#insert(task));
  }

  saveProgress(task: Task): void {
    this.#write(() => {
      this.#statements
        .prepare(
          "UPDATE tasks SET progress = ?, bytes_done = ?, bytes_total = ? WHERE uid = ? AND status = 'in_progress'",
        )
        .run(task.progress, task.bytesDone, task.bytesTotal, task.uid);
    });
  }

  addLine(uid: string, { line, timeMs, level, text }: TaskLogLine): void {
    this.#write(() => {
      this.#statements
        .prepare(
          'INSERT INTO task_logs (task, line, time, level, text) SELECT seq, ?, ?, ?, ? FROM tasks WHERE uid = ?',
        )
        .run(line, timeMs, level, text, uid);
    });
  }

  /**
   * Writes the end of a task. It never throws: where the end can't be written, this store returns it all the same, and
   * writes it before the next change. With `retryAttempt`, the next start begins the task anew as that attempt.
   */
  finish(task: Task, retryAttempt: number | null): void {
    this.#unsaved.set(task.uid, { task, retryAttempt });
    try {
      this.flush();
    } catch (error) {
      this.#logger.error({ err: error, task: task.uid }, 'The end of a task could not be written yet');
    }
  }

  /** Writes the ends that could not be written before. */
  flush(): void {
    this.#write(() => undefined);
  }

  /** Adds the retry of an interrupted task, and drops its plan. */
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
    return this.#alarm.guard(() => {
      const row = this.#statements.prepare('SELECT * FROM tasks WHERE uid = ?').get(uid);
      return row === undefined ? undefined : this.#toTask(row);
    });
  }

  /** Returns the tasks in progress, oldest first. At the start, these are the tasks of a process that died. */
  unfinished(): readonly Task[] {
    return this.#alarm.guard(() =>
      this.#statements
        .prepare("SELECT * FROM tasks WHERE status = 'in_progress' ORDER BY seq")
        .all()
        .flatMap((row) => this.#toTask(row) ?? []),
    );
  }

  /** Returns the interrupted tasks that are to begin anew, each with the number of that attempt. */
  pendingRetries(): readonly { readonly task: Task; readonly attempt: number }[] {
    return this.#alarm.guard(() =>
      this.#statements
        .prepare(
          `SELECT tasks.*, pending_retries.attempt AS next_attempt FROM tasks JOIN pending_retries ON task = seq
           ORDER BY seq`,
        )
        .all()
        .flatMap((row) => {
          const task = this.#toTask(row);
          return task === undefined ? [] : { task, attempt: Number(row['next_attempt']) };
        }),
    );
  }

  /** Returns the lines of a task's log after line `after`. */
  lines(uid: string, after: number): readonly TaskLogLine[] {
    return this.#alarm.guard(() =>
      this.#statements
        .prepare('SELECT task_logs.* FROM task_logs JOIN tasks ON task = seq WHERE uid = ? AND line > ? ORDER BY line')
        .all(uid, after)
        .flatMap((row) => this.#damagedRows.read(row, readLogLine, 'task') ?? []),
    );
  }

  /** Returns the number of lines in a task's log. */
  lineCount(uid: string): number {
    return this.#alarm.guard(() =>
      this.#statements.number(
        `SELECT max(line) FROM task_logs JOIN tasks ON task = seq WHERE uid = ? AND line <= ${MAX_LINE_NUMBER}`,
        uid,
      ),
    );
  }

  history({ provider, status, cursor, limit }: HistoryFilter): HistoryPage {
    return this.#alarm.guard(() => {
      const conditions = ['seq < :before'];
      if (provider !== undefined) conditions.push('provider = :provider');
      // A task with an unsaved end has another status in the database.
      const isStatusSaved = status !== undefined && this.#unsaved.size === 0;
      if (isStatusSaved) conditions.push('status = :status');
      const rows = this.#statements
        .prepare(`SELECT * FROM tasks WHERE ${conditions.join(' AND ')} ORDER BY seq DESC`)
        .iterate({
          before: cursor === undefined ? Number.MAX_SAFE_INTEGER : Number(cursor),
          ...(provider === undefined ? {} : { provider }),
          ...(isStatusSaved ? { status } : {}),
        });
      const tasks: Task[] = [];
      let lastSeq: SQLOutputValue = null;
      let length = 0;
      for (const row of rows) {
        const task = this.#toTask(row);
        if (task === undefined || (status !== undefined && task.status !== status)) continue;
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
    const values = TASK_COLUMNS.map((column) => `:${column}`);
    this.#statements
      .prepare(`INSERT INTO tasks (${TASK_COLUMNS.join(', ')}) VALUES (${values.join(', ')})`)
      .run(toTaskRow(task));
  }

  #saveEnd({ task, retryAttempt }: UnsavedEnd): void {
    const row = toTaskRow(task);
    const { changes } = this.#statements
      .prepare(
        `UPDATE tasks SET status = ?, progress = ?, bytes_done = ?, bytes_total = ?, result = ?, error = ?, code = ?,
           finished_at = ? WHERE uid = ? AND status = 'in_progress'`,
      )
      .run(
        row.status,
        row.progress,
        row.bytes_done,
        row.bytes_total,
        row.result,
        row.error,
        row.code,
        row.finished_at,
        row.uid,
      );
    if (retryAttempt !== null && changes > 0) {
      this.#statements
        .prepare('INSERT INTO pending_retries (task, attempt) SELECT seq, ? FROM tasks WHERE uid = ?')
        .run(retryAttempt, task.uid);
    }
    this.#retention.noteFinished(Number(changes));
    this.#retention.prune(task.finishedAtMs ?? 0, task.uid);
  }

  #dropRetry(uid: string): void {
    this.#statements.prepare('DELETE FROM pending_retries WHERE task = (SELECT seq FROM tasks WHERE uid = ?)').run(uid);
  }

  /** Writes the unsaved ends, then the changes of `work`: all of it, or nothing where a part fails. */
  #write(work: () => void): void {
    try {
      inTransaction(this.#database, () => {
        for (const end of this.#unsaved.values()) this.#saveEnd(end);
        work();
      });
      this.#unsaved.clear();
    } catch (error) {
      this.#retention.recount();
      throw this.#alarm.toStoreError(error);
    }
  }

  #toTask(row: Row): Task | undefined {
    return this.#unsaved.get(String(row['uid']))?.task ?? this.#damagedRows.read(row, readTask, 'uid');
  }
}
