import { setTimeout as sleep } from 'node:timers/promises';
import type { DatabaseSync } from 'node:sqlite';
import { LoaderError } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import type { Provider } from './provider.ts';
import { ScheduleStore } from './schedule-store.ts';
import { Schedules } from './schedules.ts';
import { toStoreError } from './store-error.ts';
import { openTaskDatabase } from './task-database.ts';
import { TaskRunner } from './task-runner.ts';
import { TaskStore } from './task-store.ts';
import type { Task } from './task.ts';

export interface TasksOptions {
  readonly stateDir: string;
  readonly historyCount: number;
  readonly historyAgeMs: number;
  readonly providers: readonly Provider[];
  /** Is told of each task that has ended. */
  readonly onEnd?: (task: Task) => void;
  readonly logger: Logger;
}

interface OpenTasks {
  readonly database: DatabaseSync;
  readonly store: TaskStore;
  readonly runner: TaskRunner;
  readonly schedules: Schedules;
}

/** How long to wait between two attempts to open the database, in ms. */
const RETRY_MS = 10_000;

/** Background tasks and their schedules, while their database can be used. The rest of the Loader works without them. */
export class Tasks {
  readonly #options: TasksOptions;
  readonly #stop = new AbortController();
  #tasks: OpenTasks | undefined;
  #failure = new LoaderError(
    'task_store_unavailable',
    'The database of the tasks is not open yet; try again in a moment.',
  );
  #opening: Promise<void> | undefined;

  constructor(options: TasksOptions) {
    this.#options = options;
  }

  /**
   * Opens the database, recovers the tasks of earlier processes, and starts the schedules. It never rejects: where the
   * database can't be used, it tries again until `stop`.
   */
  async start(): Promise<void> {
    const first = this.#tryOpen();
    this.#opening = first.then((isOpen) => (isOpen ? undefined : this.#keepTrying()));
    await first;
  }

  get providers(): readonly Provider[] {
    return this.#options.providers;
  }

  /** How many tasks of each provider are in progress. */
  get runningCounts(): ReadonlyMap<string, number> {
    const runner = this.#tasks?.runner;
    return new Map(this.#options.providers.map(({ name }) => [name, Number(runner?.isBusy(name) ?? false)]));
  }

  /** @throws LoaderError `task_store_unavailable` */
  get runner(): TaskRunner {
    return this.#opened().runner;
  }

  /** @throws LoaderError `task_store_unavailable` */
  get schedules(): Schedules {
    return this.#opened().schedules;
  }

  /** Interrupts the running tasks, and waits for their end. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#stopTasks();
    await this.#opening;
    // The last attempt to open the database may have begun tasks.
    await this.#stopTasks();
  }

  /** Closes the database. Call it last. */
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

  /** Opens the database anew, which removes what is damaged. The running tasks are interrupted: it no longer has them. */
  #mend(tasks: OpenTasks): void {
    if (this.#stop.signal.aborted || this.#tasks !== tasks) return;
    this.#tasks = undefined;
    this.#failure = new LoaderError(
      'task_store_unavailable',
      'The database of the tasks is damaged, and is being mended; try again in a moment.',
    );
    this.#options.logger.error("The tasks' database is damaged: it is opened anew, and running tasks are interrupted");
    this.#opening = this.#reopen(tasks);
  }

  async #reopen({ database, runner, schedules }: OpenTasks): Promise<void> {
    schedules.stop();
    await runner.stop();
    database.close();
    if (!(await this.#tryOpen())) await this.#keepTrying();
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
    const { stateDir, logger, providers, onEnd } = this.#options;
    let database: DatabaseSync | undefined;
    let runner: TaskRunner | undefined;
    try {
      database = await openTaskDatabase(stateDir, logger);
      const store = new TaskStore({ ...this.#options, database });
      runner = new TaskRunner({ store, providers, logger, ...(onEnd && { onEnd }) });
      const scheduleStore = new ScheduleStore(database, logger);
      const schedules = new Schedules({ store: scheduleStore, runner, logger });
      runner.recover();
      schedules.start();
      const tasks = { database, store, runner, schedules };
      this.#tasks = tasks;
      void Promise.race([store.damaged, scheduleStore.damaged]).then(() => this.#mend(tasks));
      return true;
    } catch (error) {
      await runner?.stop();
      database?.close();
      const failure = toStoreError(error);
      // One line for each reason, not for each attempt.
      if (failure.message !== this.#failure.message) {
        logger.error({ err: failure, code: failure.code }, `Tasks and schedules do not work: ${failure.message}`);
      }
      this.#failure = failure;
      return false;
    }
  }
}
