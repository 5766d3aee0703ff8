import { abortReason } from '../async/abort.ts';
import { Changes } from '../async/changes.ts';
import { unfinishedPercent } from '../async/unfinished-percent.ts';
import { asLoaderError, type LoaderError } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import { PartialResultError, type TaskContext, type TaskProgress, type TaskWork } from './provider.ts';
import type { TaskStore } from './task-store.ts';
import type { Task, TaskLogLevel } from './task.ts';

export interface RunningTaskOptions {
  readonly store: TaskStore;
  readonly logger: Logger;
  readonly now: () => number;
  /** Whether the next start begins the task anew when the Loader stops before its end. */
  readonly isRepeatable: boolean;
}

/**
 * The shortest time between two writes of the bytes, in ms. A new percentage is written before a client sees it, so that
 * it does not go back when the process dies.
 */
const SAVE_INTERVAL_MS = 1_000;
/** The provider's lines; the runner adds one when the task does not complete. */
const MAX_LOG_LINES = 1_000;
const MAX_LINE_LENGTH = 1_000;

/** A task whose provider is at work. */
export class RunningTask {
  /** Resolves when the work and its side effects have ended, with the task as it will stay. It never rejects. */
  readonly ended: Promise<Task>;
  readonly #options: RunningTaskOptions;
  readonly #abort = new AbortController();
  readonly #changes = new Changes();
  #task: Task;
  #lines = 0;
  #savedAtMs: number;

  /** Begins the work of a task that is in the store. */
  constructor(task: Task, work: TaskWork, options: RunningTaskOptions) {
    this.#options = options;
    this.#task = task;
    this.#savedAtMs = options.now();
    this.ended = this.#run(work);
  }

  get task(): Task {
    return this.#task;
  }

  /** The number of lines in the log. */
  get lines(): number {
    return this.#lines;
  }

  /** Resolves at the next change of the task or its log. */
  get changed(): Promise<undefined> {
    return this.#changes.next;
  }

  /** Asks the work to end; `ended` resolves when it has. The first reason counts. */
  cancel(reason: LoaderError): void {
    this.#abort.abort(reason);
  }

  async #run(work: TaskWork): Promise<Task> {
    const context: TaskContext = {
      signal: this.#abort.signal,
      isUnattended: this.#task.scheduleId !== null || this.#task.retryOf !== null,
      report: (progress) => this.#report(progress),
      log: (level, text) => {
        if (this.#lines < MAX_LOG_LINES - 1) this.#log(level, text);
        else if (this.#lines === MAX_LOG_LINES - 1) this.#log('warn', `No more than ${MAX_LOG_LINES} lines are kept.`);
      },
    };
    try {
      // The call that created the task returns before the work begins.
      await Promise.resolve();
      const result = await work(context);
      if (!isJson(result)) throw new TypeError('the result of a task is not JSON');
      this.#finish({ status: 'complete', progress: 100, result });
    } catch (error) {
      this.#fail(this.#abort.signal.aborted ? abortReason(this.#abort.signal) : error);
    }
    return this.#task;
  }

  #fail(error: unknown): void {
    const { logger, isRepeatable } = this.#options;
    const failure = asLoaderError(error);
    const result = failure instanceof PartialResultError && isJson(failure.result) ? failure.result : null;
    const { message, code } = failure;
    const end = { result, error: message, code };
    if (code === 'task_interrupted') {
      this.#log('warn', message);
      // The retry has the same attempt, since the stop was not the fault of the task.
      this.#finish({ ...end, status: 'interrupted' }, isRepeatable ? this.#task.attempt : null);
    } else if (code === 'task_cancelled') {
      this.#log('warn', message);
      this.#finish({ ...end, status: 'cancelled' });
    } else {
      logger.error({ err: failure, code }, 'A task failed');
      this.#log('error', message);
      this.#finish({ ...end, status: 'failed' });
    }
  }

  #finish(end: Pick<Task, 'status' | 'result'> & Partial<Task>, retryAttempt: number | null = null): void {
    const task = { ...this.#task, ...end, waitingFor: null, finishedAtMs: this.#options.now() };
    this.#options.store.finish(task, retryAttempt);
    this.#task = task;
    this.#options.logger.info({ status: task.status, ms: task.finishedAtMs - task.createdAtMs }, 'A task ended');
    this.#changes.announce();
  }

  #report({ bytesDone, bytesTotal, percent, waitingFor = null }: TaskProgress): void {
    // Work may report after its end.
    if (this.#task.status !== 'in_progress') return;
    const share = percent ?? (bytesTotal === null || bytesTotal === 0 ? 0 : (100 * bytesDone) / bytesTotal);
    if (![share, bytesDone, bytesTotal ?? 0].every(Number.isFinite)) return;
    const earlier = this.#task;
    const progress = unfinishedPercent(earlier.progress, share);
    this.#task = {
      ...earlier,
      progress,
      bytesDone: Math.max(earlier.bytesDone, Math.floor(bytesDone)),
      bytesTotal: bytesTotal === null ? null : Math.floor(bytesTotal),
      waitingFor,
    };
    const nowMs = this.#options.now();
    if (progress > earlier.progress || Math.abs(nowMs - this.#savedAtMs) >= SAVE_INTERVAL_MS) {
      this.#savedAtMs = nowMs;
      this.#try(() => this.#options.store.saveProgress(this.#task));
    }
    this.#changes.announce();
  }

  #log(level: TaskLogLevel, text: string): void {
    if (this.#task.status !== 'in_progress') return;
    const line = this.#lines + 1;
    const shown = text.slice(0, MAX_LINE_LENGTH);
    this.#try(() => {
      this.#options.store.addLine(this.#task.uid, { line, timeMs: this.#options.now(), level, text: shown });
      this.#lines = line;
    });
    this.#changes.announce();
  }

  /** Lets the task go on where the database refuses its progress or a line. */
  #try(write: () => void): void {
    try {
      write();
    } catch (error) {
      this.#options.logger.warn({ err: error }, 'Progress or log of a task could not be written');
    }
  }
}

/** A provider may return a value that its type does not show to be no JSON. */
function isJson(result: unknown): boolean {
  try {
    return typeof JSON.stringify(result) === 'string';
  } catch {
    return false;
  }
}
