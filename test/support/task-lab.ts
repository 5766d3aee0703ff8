import { DatabaseSync } from 'node:sqlite';
import type { TObject } from 'typebox';
import { createLogger, type Logger } from '../../src/log/logger.ts';
import { defineProvider, type Provider, type TaskContext, type TaskWork } from '../../src/tasks/provider.ts';
import { migrate } from '../../src/tasks/migrations.ts';
import { TaskRunner } from '../../src/tasks/task-runner.ts';
import { TaskStore } from '../../src/tasks/task-store.ts';
import type { Task, TaskLogLine } from '../../src/tasks/task.ts';
import { JSON_VALUE, Type } from '../../src/json-schemas.ts';
import type { JsonObject, JsonValue } from '../../src/json.ts';

export const HOUR_MS = 60 * 60 * 1000;
export const DAY_MS = 24 * HOUR_MS;

/** A run that the test ends. */
export interface ControlledRun {
  readonly parameters: JsonObject;
  readonly context: TaskContext;
  readonly complete: (result?: JsonValue) => void;
  readonly fail: (error: unknown) => void;
}

export interface ControlledOptions {
  readonly isRepeatable?: boolean;
  readonly parameters?: TObject;
}

const ANY_PARAMETERS = Type.Object({});

/** A provider whose runs the test ends. */
export class ControlledProvider {
  readonly provider: Provider;
  /** The runs that began, in their order. */
  readonly runs: ControlledRun[] = [];
  #begin: ((parameters: JsonObject, run: TaskWork) => void) | undefined;

  constructor(name: string, { isRepeatable = false, parameters = ANY_PARAMETERS }: ControlledOptions = {}) {
    this.provider = defineProvider({
      name,
      parameters,
      result: JSON_VALUE,
      isRepeatable,
      run: (given, context) => this.#run(given as JsonObject, context),
      onOutsideWork: (begin) => {
        this.#begin = begin;
      },
    });
  }

  /** The run that began last. */
  get last(): ControlledRun {
    const run = this.runs.at(-1);
    if (run === undefined) throw new Error('nothing ran');
    return run;
  }

  /** Begins a run elsewhere. */
  beginOutside(parameters: JsonObject): void {
    this.#begin?.(parameters, (context) => this.#run(parameters, context));
  }

  #run(parameters: JsonObject, context: TaskContext): Promise<JsonValue> {
    const { promise, resolve, reject } = Promise.withResolvers<JsonValue>();
    this.runs.push({
      parameters,
      context,
      complete: (result = null) => resolve(result),
      fail: reject,
    });
    return promise;
  }
}

/** Collects what is logged, as JSON texts. Its errors tell more than the Loader's do. */
export function makeLogger(): { readonly logger: Logger; readonly logLines: string[] } {
  const logLines: string[] = [];
  const logger = createLogger({ level: 'trace', outputs: [{ write: (line) => logLines.push(line) }] });
  return { logger, logLines };
}

/** A database of tasks that is in memory only. */
export function openMemoryDatabase(): DatabaseSync {
  const database = new DatabaseSync(':memory:');
  migrate(database);
  return database;
}

export interface TaskLabOptions {
  readonly historyCount?: number;
  readonly historyAgeMs?: number;
  readonly now?: () => number;
  readonly database?: DatabaseSync;
  /** In the place of one that collects what is logged. */
  readonly logger?: Logger;
}

/** Store and runner over a database in memory. `restart` makes the next ones, as another process would. */
export class TaskLab {
  readonly database: DatabaseSync;
  readonly logLines: string[];
  readonly logger: Logger;
  providers: readonly ControlledProvider[];
  store: TaskStore;
  runner: TaskRunner;
  readonly #options: TaskLabOptions;

  constructor(providers: readonly ControlledProvider[], options: TaskLabOptions = {}) {
    this.#options = options;
    this.database = options.database ?? openMemoryDatabase();
    this.providers = providers;
    const { logger, logLines } = makeLogger();
    this.logger = options.logger ?? logger;
    this.logLines = logLines;
    this.store = this.#newStore();
    this.runner = this.#newRunner(providers);
    this.runner.recover();
  }

  /** Drops store and runner as they are, as death does, and takes up what they left behind. */
  restart(providers: readonly ControlledProvider[] = this.providers): void {
    this.providers = providers;
    this.store = this.#newStore();
    this.runner = this.#newRunner(providers);
    this.runner.recover();
  }

  /** Begins a task that must begin. */
  begin(provider: string, parameters: JsonObject = {}): Task {
    const task = this.runner.create(provider, parameters);
    if (task === undefined) throw new Error(`${provider} is busy`);
    return task;
  }

  /** The task as it is on disk, or will be. */
  stored(uid: string): Task {
    const task = this.store.find(uid);
    if (task === undefined) throw new Error('there is no such task');
    return task;
  }

  texts(uid: string): string[] {
    return this.runner.lines(uid, 0).map((line) => line.text);
  }

  /** Every write fails until it is allowed again. */
  refuseWrites(isRefused: boolean): void {
    this.database.exec(`PRAGMA query_only = ${isRefused ? 1 : 0}`);
  }

  #newStore(): TaskStore {
    const { historyCount = 10_000, historyAgeMs = 90 * DAY_MS } = this.#options;
    return new TaskStore({ database: this.database, logger: this.logger, historyCount, historyAgeMs });
  }

  #newRunner(providers: readonly ControlledProvider[]): TaskRunner {
    return new TaskRunner({
      store: this.store,
      logger: this.logger,
      providers: providers.map(({ provider }) => provider),
      ...(this.#options.now === undefined ? {} : { now: this.#options.now }),
    });
  }
}

/** A task that has ended well, unless `change` says otherwise. */
export function endTask(task: Task, change: Partial<Task> = {}): Task {
  return { ...task, status: 'complete', progress: 100, finishedAtMs: Date.now(), ...change };
}

/** Stores a task that has ended, of a provider of its own unless it is named. */
export function addEndedTask(store: TaskStore, uid: string, change: Partial<Task> = {}): Task {
  const task = makeTask({ uid, provider: `p-${uid}`, ...change, status: 'in_progress', finishedAtMs: null });
  store.insert(task);
  const ended = endTask(task, change);
  store.finish(ended, null);
  return ended;
}

/** A task as the runner makes them. */
export function makeTask(task: Partial<Task> & Pick<Task, 'uid'>): Task {
  return {
    provider: 'p',
    status: 'in_progress',
    progress: 0,
    bytesDone: 0,
    bytesTotal: null,
    waitingFor: null,
    parameters: {},
    result: null,
    error: null,
    code: null,
    attempt: 1,
    retryOf: null,
    scheduleId: null,
    createdAtMs: 1_000,
    finishedAtMs: null,
    ...task,
  };
}

export function makeLine(line: number, text = `line ${line}`): TaskLogLine {
  return { line, timeMs: 1_000 + line, level: 'info', text };
}

/** Fills the database: each schedule has some 500 bytes. */
export function addSchedules(database: DatabaseSync, count: number, prefix = 'id'): void {
  const insert =
    database.prepare(`INSERT INTO schedules (id, provider, parameters, cron, timezone, catch_up, created_at, last_run)
     VALUES (?, 'p', ?, '* * * * *', 'UTC', 0, 1, 'null')`);
  for (let index = 0; index < count; index++) insert.run(`${prefix}-${index}`, JSON.stringify({ x: 'x'.repeat(500) }));
}

export function countSchedules(database: DatabaseSync): unknown {
  return database.prepare('SELECT count(*) AS n FROM schedules').get()?.['n'];
}

/** The value of a pragma of SQLite. */
export function pragma(database: DatabaseSync, name: string): unknown {
  return Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0];
}
