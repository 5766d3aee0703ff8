import { randomUUID } from 'node:crypto';
import { LoaderError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import type { PreparedTask, Provider, TaskWork } from './provider.ts';
import { RunningTask } from './running-task.ts';
import { followTask, isPastEnd, type EventPosition, type FollowedTask, type TaskEvent } from './task-events.ts';
import type { HistoryFilter, HistoryPage, TaskStore } from './task-store.ts';
import type { Task, TaskLogLine } from './task.ts';
import type { JsonObject } from '../json.ts';

export interface TaskRunnerOptions {
  readonly store: TaskStore;
  readonly providers: readonly Provider[];
  readonly logger: Logger;
  /** ms since 1970. */
  readonly now?: () => number;
}

/** Thrown for a provider that there is not. */
export class UnknownProviderError extends LoaderError {
  readonly known: readonly string[];

  constructor(known: readonly string[]) {
    super('validation_failed', `The provider must be one of ${known.join(', ')}.`);
    this.known = known;
  }
}

/** How long an ended task stays among the running ones, in ms, so that those who poll for them see its end. */
const LINGER_MS = 1_000;
/** Of a task that dies together with the Loader time and again: it may be what kills it. */
const MAX_ATTEMPTS = 10;

/**
 * Runs tasks, one of each provider at a time. Each is in the store before anybody hears of it; so is its end, unless the
 * disk is full, when it is written as soon as that is possible.
 */
export class TaskRunner {
  readonly #options: Required<TaskRunnerOptions>;
  /** By provider. */
  readonly #running = new Map<string, RunningTask>();
  /** By uid: tasks that ended within the last second. */
  readonly #lingering = new Map<string, Task>();
  #isStopping = false;

  constructor(options: TaskRunnerOptions) {
    this.#options = { now: Date.now, ...options };
  }

  /**
   * Ends what an earlier process left behind: its tasks are `interrupted`, and begin anew, as other tasks, where their
   * provider says that it does no harm. From here on, work that begins elsewhere is taken in. Once, before anything else.
   */
  recover(): void {
    const { store, providers, logger } = this.#options;
    for (const task of store.unfinished()) {
      const error = 'The Loader ended without a farewell while the task ran.';
      store.addLine(task.uid, { line: store.lineCount(task.uid) + 1, timeMs: this.#now(), level: 'warn', text: error });
      store.finish(
        { ...task, status: 'interrupted', error, code: 'task_interrupted', finishedAtMs: this.#now() },
        this.#provider(task.provider)?.isRepeatable === true && task.attempt < MAX_ATTEMPTS ? task.attempt + 1 : null,
      );
      logger.warn({ task: task.uid, provider: task.provider }, 'A task was interrupted by the end of the Loader');
    }
    for (const { task, attempt } of store.pendingRetries()) this.#retry(task, attempt);
    for (const provider of providers) {
      provider.onOutsideRun?.((parameters, run) => this.#adopt(provider, parameters, run));
    }
  }

  /**
   * Begins a task; undefined while one of the same provider runs. Nothing can come between the question and the start.
   *
   * @throws UnknownProviderError, ParametersError; LoaderError `task_store_unavailable`, `shutting_down`
   */
  create(providerName: string, parameters: JsonObject, scheduleId: string | null = null): Task | undefined {
    const provider = this.#knownProvider(providerName);
    const prepared = provider.prepare(parameters);
    if (this.#isStopping)
      throw new LoaderError('shutting_down', 'The Loader is stopping; ask again when it has started.');
    if (this.#running.has(provider.name)) return undefined;
    const task = this.#newTask(provider, prepared.parameters, { scheduleId });
    this.#options.store.insert(task);
    this.#start(provider, task, prepared.run);
    return task;
  }

  /** Checks parameters that are to be used later. @throws UnknownProviderError, ParametersError */
  check(providerName: string, parameters: JsonObject): PreparedTask {
    return this.#knownProvider(providerName).prepare(parameters);
  }

  isBusy(providerName: string): boolean {
    return this.#running.has(providerName);
  }

  /** The running tasks, and those that ended within the last second. */
  list(): readonly Task[] {
    return [...this.#lingering.values(), ...[...this.#running.values()].map(({ task }) => task)];
  }

  /** @throws LoaderError `task_not_found` */
  find(uid: string): Task {
    const task = this.#findRunning(uid)?.task ?? this.#options.store.find(uid);
    if (task === undefined) throw new LoaderError('task_not_found', 'There is no task with this uid, or no more.');
    return task;
  }

  history(filter: HistoryFilter): HistoryPage {
    const page = this.#options.store.history(filter);
    // The store knows how far running ones were a moment ago.
    return { ...page, tasks: page.tasks.map((task) => this.#findRunning(task.uid)?.task ?? task) };
  }

  /** The log of a task from the line after `after` on. @throws LoaderError `task_not_found` */
  lines(uid: string, after: number): readonly TaskLogLine[] {
    this.find(uid);
    return this.#options.store.lines(uid, after);
  }

  /**
   * Cancels a task, and answers it when its side effects have stopped. One that has ended stays as it is.
   *
   * @throws LoaderError `task_not_found`
   */
  async cancel(uid: string): Promise<Task> {
    const running = this.#findRunning(uid);
    if (running === undefined) return this.find(uid);
    running.cancel(new LoaderError('task_cancelled', 'The task was cancelled.'));
    return await running.ended;
  }

  /** What happened to a task after `position`, and what happens until its end. @throws LoaderError `task_not_found` */
  watch(uid: string, position: EventPosition, signal: AbortSignal): AsyncGenerator<TaskEvent, void, undefined> {
    return followTask(this.#followed(uid), position, (after) => this.#options.store.lines(uid, after), signal);
  }

  /** Whether nothing will ever happen to a task after `position`. @throws LoaderError `task_not_found` */
  isPastEnd(uid: string, position: EventPosition): boolean {
    const { task, lines } = this.#followed(uid);
    return task.status !== 'in_progress' && isPastEnd(position, lines);
  }

  /** Interrupts what runs, and ends when all of it has. Nothing can be started any more. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    const running = [...this.#running.values()];
    for (const task of running) {
      task.cancel(new LoaderError('task_interrupted', 'The Loader stopped while the task ran.'));
    }
    await Promise.all(running.map(({ ended }) => ended));
  }

  /** @throws LoaderError `task_store_unavailable` */
  #retry(interrupted: Task, attempt: number): void {
    const { store, logger } = this.#options;
    let provider: Provider;
    let prepared: PreparedTask;
    try {
      provider = this.#knownProvider(interrupted.provider);
      prepared = provider.prepare(interrupted.parameters);
    } catch (error) {
      // Another version of the Loader may have begun it.
      store.dropRetry(interrupted.uid);
      logger.warn({ err: error, task: interrupted.uid }, 'An interrupted task can not begin anew');
      return;
    }
    const { uid: retryOf, scheduleId } = interrupted;
    const task = this.#newTask(provider, prepared.parameters, { scheduleId, attempt, retryOf });
    store.insertRetry(task);
    this.#start(provider, task, prepared.run);
  }

  /** Takes in work that began elsewhere. Where it can't be stored, the work goes on without a task. */
  #adopt(provider: Provider, parameters: JsonObject, run: TaskWork): void {
    if (this.#isStopping || this.#running.has(provider.name)) return;
    try {
      const task = this.#newTask(provider, parameters, {});
      this.#options.store.insert(task);
      this.#start(provider, task, run);
    } catch (error) {
      this.#options.logger.warn({ err: error, provider: provider.name }, 'Work goes on without being among the tasks');
    }
  }

  #newTask(provider: Provider, parameters: JsonObject, origin: Partial<Task>): Task {
    return {
      uid: randomUUID(),
      provider: provider.name,
      status: 'in_progress',
      progress: 0,
      bytesDone: 0,
      bytesTotal: null,
      parameters,
      result: null,
      error: null,
      code: null,
      attempt: 1,
      retryOf: null,
      scheduleId: null,
      createdAtMs: this.#now(),
      finishedAtMs: null,
      ...origin,
    };
  }

  #start(provider: Provider, task: Task, run: TaskWork): void {
    const { store, now } = this.#options;
    const logger = this.#options.logger.child({ task: task.uid, provider: task.provider });
    logger.info({ attempt: task.attempt }, 'A task began');
    const running = new RunningTask(task, run, { store, logger, now, isRepeatable: provider.isRepeatable });
    this.#running.set(provider.name, running);
    void running.ended.then((ended) => {
      this.#running.delete(provider.name);
      this.#lingering.set(ended.uid, ended);
      setTimeout(() => this.#lingering.delete(ended.uid), LINGER_MS).unref();
    });
  }

  #followed(uid: string): FollowedTask {
    const running = this.#findRunning(uid);
    return running ?? { task: this.find(uid), lines: this.#options.store.lineCount(uid), changed: undefined };
  }

  #findRunning(uid: string): RunningTask | undefined {
    return [...this.#running.values()].find(({ task }) => task.uid === uid);
  }

  #provider(name: string): Provider | undefined {
    return this.#options.providers.find((provider) => provider.name === name);
  }

  #knownProvider(name: string): Provider {
    const provider = this.#provider(name);
    if (provider === undefined)
      throw new UnknownProviderError(this.#options.providers.map((known) => known.name).sort());
    return provider;
  }

  #now(): number {
    return this.#options.now();
  }
}
