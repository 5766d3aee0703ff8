import { setTimeout as sleep } from 'node:timers/promises';
import type { DatabaseSync } from 'node:sqlite';
import { LoaderError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import type { Provider } from './provider.ts';
import { ScheduleStore } from './schedule-store.ts';
import { Schedules } from './schedules.ts';
import { openTaskDatabase, toStoreError } from './task-database.ts';
import { TaskRunner } from './task-runner.ts';
import { TaskStore } from './task-store.ts';

export interface TasksOptions {
  readonly stateDir: string;
  readonly historyCount: number;
  readonly historyAgeMs: number;
  readonly providers: readonly Provider[];
  readonly logger: Logger;
}

interface OpenTasks {
  readonly database: DatabaseSync;
  readonly store: TaskStore;
  readonly runner: TaskRunner;
  readonly schedules: Schedules;
}

/** How long to wait before a database that can't be opened is tried again, in ms. */
const RETRY_MS = 10_000;

/** Background tasks and their schedules, as long as their database can be used; the rest of the Loader needs neither. */
export class Tasks {
  readonly #options: TasksOptions;
  readonly #stop = new AbortController();
  #tasks: OpenTasks | undefined;
  #failure = new LoaderError('task_store_unavailable', 'The database of the tasks is not open yet.');
  #opening: Promise<void> | undefined;

  constructor(options: TasksOptions) {
    this.#options = options;
  }

  /** Opens the database and takes up what was left behind. It never fails, but tries again from time to time. */
  async start(): Promise<void> {
    const first = this.#tryOpen();
    this.#opening = first.then((isOpen) => (isOpen ? undefined : this.#keepTrying()));
    await first;
  }

  /** @throws LoaderError `task_store_unavailable` */
  get runner(): TaskRunner {
    return this.#opened().runner;
  }

  /** @throws LoaderError `task_store_unavailable` */
  get schedules(): Schedules {
    return this.#opened().schedules;
  }

  /** Interrupts what runs; ends when all of it has. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#stopTasks();
    await this.#opening;
    await this.#stopTasks(); // They may have been opened just then.
  }

  /** Closes the database. For the end of the process. */
  close(): void {
    const { database, store } = this.#tasks ?? {};
    this.#tasks = undefined;
    try {
      store?.flush();
    } catch (error) {
      this.#options.logger.error({ err: error }, 'The ends of some tasks could not be written');
    }
    database?.close();
  }

  async #stopTasks(): Promise<void> {
    this.#tasks?.schedules.stop();
    await this.#tasks?.runner.stop();
  }

  #opened(): OpenTasks {
    if (this.#tasks === undefined) throw this.#failure;
    return this.#tasks;
  }

  async #keepTrying(): Promise<void> {
    const { signal } = this.#stop;
    do {
      await sleep(RETRY_MS, undefined, { signal, ref: false }).catch(() => undefined);
    } while (!signal.aborted && !(await this.#tryOpen()));
  }

  async #tryOpen(): Promise<boolean> {
    const { stateDir, logger, providers } = this.#options;
    let database: DatabaseSync | undefined;
    let runner: TaskRunner | undefined;
    try {
      database = await openTaskDatabase(stateDir, logger);
      const store = new TaskStore({ ...this.#options, database });
      runner = new TaskRunner({ store, providers, logger });
      const schedules = new Schedules({ store: new ScheduleStore(database), runner, logger });
      runner.recover();
      schedules.start();
      this.#tasks = { database, store, runner, schedules };
      return true;
    } catch (error) {
      await runner?.stop();
      database?.close();
      const failure = toStoreError(error);
      // Once, not each time.
      if (failure.message !== this.#failure.message) {
        logger.error({ err: failure, code: failure.code }, 'There are no tasks and schedules until this is mended');
      }
      this.#failure = failure;
      return false;
    }
  }
}
