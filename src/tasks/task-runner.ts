import { randomUUID } from 'node:crypto';
import { InputError, LoaderError, shuttingDown, type InputSource } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import type { PreparedTask, Provider, TaskWork } from './provider.ts';
import { RunningTask } from './running-task.ts';
import { oneOf } from './schema-faults.ts';
import { followTask, isPastEnd, type EventPosition, type FollowedTask, type TaskEvent } from './task-events.ts';
import type { HistoryFilter, HistoryPage, TaskStore } from './task-store.ts';
import type { Task, TaskLogLine } from './task.ts';
import type { JsonObject } from '../json.ts';

export interface TaskRunnerOptions {
  readonly store: TaskStore;
  readonly providers: readonly Provider[];
  readonly logger: Logger;
  /** Is told of each task that has ended. */
  readonly onEnd?: (task: Task) => void;
  /** ms since 1970. */
  readonly now?: () => number;
}

/** How long an ended task stays in the list of running tasks, in ms, so that a client that polls the list sees its end. */
const LINGER_MS = 1_000;
/** A task that died with the Loader in this many attempts may be the cause, and does not begin anew. */
const MAX_ATTEMPTS = 10;

/**
 * Runs tasks, at most one of each provider at a time. The store has a task, and its end, before a caller sees them. Only
 * where the disk is full, an end is visible first: the store writes it as soon as it can.
 */
export class TaskRunner {
  readonly #options: TaskRunnerOptions & Required<Pick<TaskRunnerOptions, 'now'>>;
  /** By provider. */
  readonly #running = new Map<string, RunningTask>();
  /** The tasks that ended within the last second, by uid. */
  readonly #lingering = new Map<string, Task>();
  #isStopping = false;

  constructor(options: TaskRunnerOptions) {
    this.#options = { now: Date.now, ...options };
  }

  /**
   * Sets the tasks that an earlier process left in progress to `interrupted`, and begins them anew, as other tasks, where
   * their provider is repeatable. From then on, work that begins elsewhere becomes a task too. Call it once, first of all.
   *
   * @throws LoaderError `task_store_unavailable`
   */
  recover(): void {
    const { store, providers, logger } = this.#options;
    for (const task of store.unfinished()) {
      const error = 'The Loader died while the task ran.';
      store.addLine(task.uid, { line: store.lineCount(task.uid) + 1, timeMs: this.#now(), level: 'warn', text: error });
      store.finish(
        { ...task, status: 'interrupted', error, code: 'task_interrupted', finishedAtMs: this.#now() },
        this.#provider(task.provider)?.isRepeatable === true && task.attempt < MAX_ATTEMPTS ? task.attempt + 1 : null,
      );
      logger.warn({ task: task.uid, provider: task.provider }, 'The death of the Loader interrupted a task');
    }
    for (const { task, attempt } of store.pendingRetries()) this.#retry(task, attempt);
    for (const provider of providers) {
      provider.onOutsideWork?.((parameters, work) => this.#adopt(provider, parameters, work));
    }
  }

  /**
   * Begins a task, and returns it; undefined while a task of the same provider runs. Check and start are one step.
   *
   * @throws InputError; LoaderError `task_store_unavailable`, `shutting_down`
   */
  create(providerName: string, parameters: JsonObject, scheduleId: string | null = null): Task | undefined {
    const provider = this.#knownProvider(providerName);
    const prepared = provider.prepare(parameters);
    if (this.#isStopping) throw shuttingDown();
    if (this.#running.has(provider.name)) return undefined;
    const task = this.#newTask(provider, prepared.parameters, { scheduleId });
    this.#options.store.insert(task);
    this.#start(provider, task, prepared.work);
    return task;
  }

  /**
   * Begins a task, and returns it.
   *
   * @throws as `create`; LoaderError `provider_busy`
   */
  begin(providerName: string, parameters: JsonObject, scheduleId: string | null = null): Task {
    const task = this.create(providerName, parameters, scheduleId);
    if (task === undefined) throw this.#busy(providerName);
    return task;
  }

  /**
   * Begins a task that has ended once more, as another task, and returns that.
   *
   * @throws LoaderError `task_not_found`, `provider_busy`, `task_not_repeatable`, `task_store_unavailable`, `shutting_down`
   */
  retry(uid: string): Task {
    const earlier = this.find(uid);
    if (this.isBusy(earlier.provider)) throw this.#busy(earlier.provider);
    const prepared = this.#prepareAgain(earlier);
    if (this.#isStopping) throw shuttingDown();
    const { scheduleId, attempt } = earlier;
    const origin = { scheduleId, attempt: attempt + 1, retryOf: uid };
    const task = this.#newTask(prepared.provider, prepared.parameters, origin);
    this.#options.store.insert(task);
    this.#start(prepared.provider, task, prepared.work);
    return task;
  }

  /** The task of a provider that is busy. @throws Error where it is not: a fault of the Loader */
  running(providerName: string): Task {
    const running = this.#running.get(providerName);
    if (running === undefined) throw new Error(`no task of ${providerName} is in progress`);
    return running.task;
  }

  /** Checks the fields `provider` and `parameters` of a schedule, whose tasks come later. @throws InputError */
  check(providerName: string, parameters: JsonObject): PreparedTask {
    const provider = this.#knownProvider(providerName);
    try {
      return provider.prepare(parameters);
    } catch (error) {
      throw error instanceof InputError ? error.under('parameters') : error;
    }
  }

  isBusy(providerName: string): boolean {
    return this.#running.has(providerName);
  }

  /** Returns the running tasks and those that ended within the last second. */
  list(): readonly Task[] {
    return [...this.#lingering.values(), ...[...this.#running.values()].map(({ task }) => task)];
  }

  /** @throws LoaderError `task_not_found` */
  find(uid: string): Task {
    const task = this.#findRunning(uid)?.task ?? this.#options.store.find(uid);
    if (task === undefined)
      throw new LoaderError('task_not_found', 'No task has this uid, or the history no longer has it.');
    return task;
  }

  /** @throws InputError where there is no such provider */
  history(filter: HistoryFilter): HistoryPage {
    if (filter.provider !== undefined) this.#knownProvider(filter.provider, 'query');
    const page = this.#options.store.history(filter);
    // The progress in the store is up to a second old.
    return { ...page, tasks: page.tasks.map((task) => this.#findRunning(task.uid)?.task ?? task) };
  }

  /** Returns the lines of a task's log after line `after`. @throws LoaderError `task_not_found` */
  lines(uid: string, after: number): readonly TaskLogLine[] {
    this.find(uid);
    return this.#options.store.lines(uid, after);
  }

  /**
   * Cancels a task, and returns it when its side effects have stopped. A task that has ended stays as it is.
   *
   * @throws LoaderError `task_not_found`
   */
  async cancel(uid: string): Promise<Task> {
    const running = this.#findRunning(uid);
    if (running === undefined) return this.find(uid);
    running.cancel(new LoaderError('task_cancelled', 'The task was cancelled.'));
    return await running.ended;
  }

  /** Yields the events of a task from `position` to its end. @throws LoaderError `task_not_found` */
  watch(uid: string, position: EventPosition, signal: AbortSignal): AsyncGenerator<TaskEvent, void, undefined> {
    return followTask(this.#followed(uid), position, (after) => this.#options.store.lines(uid, after), signal);
  }

  /** Tells whether no event of a task can come after `position`. @throws LoaderError `task_not_found` */
  isPastEnd(uid: string, position: EventPosition): boolean {
    const { task, lines } = this.#followed(uid);
    return task.status !== 'in_progress' && isPastEnd(position, lines);
  }

  /** Interrupts the running tasks, and waits for their end. No task can begin any more. */
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
    let prepared: PreparedTask & { readonly provider: Provider };
    try {
      prepared = this.#prepareAgain(interrupted);
    } catch (error) {
      store.dropRetry(interrupted.uid);
      logger.warn(
        { err: error, task: interrupted.uid },
        'An interrupted task can not begin anew: its provider no longer takes it',
      );
      return;
    }
    const { uid: retryOf, scheduleId } = interrupted;
    const task = this.#newTask(prepared.provider, prepared.parameters, { scheduleId, attempt, retryOf });
    store.insertRetry(task);
    this.#start(prepared.provider, task, prepared.work);
  }

  /** @throws LoaderError `task_not_repeatable`: secrets are never kept, and an older Loader may have begun the task */
  #prepareAgain(earlier: Task): PreparedTask & { readonly provider: Provider } {
    try {
      const provider = this.#knownProvider(earlier.provider);
      return { ...provider.prepare(earlier.parameters), provider };
    } catch (error) {
      const message = "The task can't begin again: its parameters held a secret, or this Loader does not take them.";
      throw new LoaderError('task_not_repeatable', `${message} Begin a new one with POST /.`, { cause: error });
    }
  }

  #busy(providerName: string): LoaderError {
    const { uid } = this.running(providerName);
    const what = `Task ${uid} of the provider ${providerName} is in progress`;
    return new LoaderError('provider_busy', `${what}: wait for its end, or DELETE /tasks/${uid}.`);
  }

  /** Makes a task of work that began elsewhere. Where the store refuses it, the work goes on without a task. */
  #adopt(provider: Provider, parameters: JsonObject, work: TaskWork): void {
    if (this.#isStopping || this.#running.has(provider.name)) return;
    try {
      const task = this.#newTask(provider, parameters, {});
      this.#options.store.insert(task);
      this.#start(provider, task, work);
    } catch (error) {
      this.#options.logger.warn(
        { err: error, provider: provider.name },
        'The work of a provider goes on without a task',
      );
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
      waitingFor: null,
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

  #start(provider: Provider, task: Task, work: TaskWork): void {
    const { store, now } = this.#options;
    const logger = this.#options.logger.child({ task: task.uid, provider: task.provider });
    logger.info({ attempt: task.attempt }, 'A task began');
    const running = new RunningTask(task, work, { store, logger, now, isRepeatable: provider.isRepeatable });
    this.#running.set(provider.name, running);
    void running.ended.then((ended) => {
      this.#running.delete(provider.name);
      this.#options.onEnd?.(ended);
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

  #knownProvider(name: string, source: InputSource = 'body'): Provider {
    const provider = this.#provider(name);
    if (provider !== undefined) return provider;
    const message = oneOf(this.#options.providers.map((known) => known.name).sort());
    throw new InputError([{ type: 'literal_error', path: ['provider'], message }], source);
  }

  #now(): number {
    return this.#options.now();
  }
}
