import { randomUUID } from 'node:crypto';
import { LoaderError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { CronExpression, CronExpressionError } from './cron-expression.ts';
import type { ScheduleStore } from './schedule-store.ts';
import type { Schedule, ScheduledRun } from './schedule.ts';
import type { TaskRunner } from './task-runner.ts';
import type { JsonObject } from './task.ts';

export interface SchedulesOptions {
  readonly store: ScheduleStore;
  readonly runner: TaskRunner;
  readonly logger: Logger;
  /** ms since 1970; it may jump, as the clocks of devices do. */
  readonly now?: () => number;
}

export interface NewSchedule {
  readonly provider: string;
  readonly parameters: JsonObject;
  readonly cron: string;
  readonly timezone: string;
  readonly catchUp: boolean;
}

/** The longest sleep between two looks at the clock, in ms: it may be set meanwhile. */
const MAX_SLEEP_MS = 30_000;
/** A time that passed longer ago than this, in ms, was missed. */
const MAX_LATENESS_MS = 60_000;
const MAX_SCHEDULES = 1_000;

/** Begins tasks at their times. */
export class Schedules {
  readonly #options: Required<SchedulesOptions>;
  /** By id, in the order of their creation. */
  readonly #schedules = new Map<string, Schedule>();
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;

  constructor(options: SchedulesOptions) {
    this.#options = { now: Date.now, ...options };
  }

  /** Reads the schedules, makes up for missed times, and waits for the next. @throws LoaderError `task_store_unavailable` */
  start(): void {
    for (const schedule of this.#options.store.list()) this.#schedules.set(schedule.id, schedule);
    this.tick();
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  list(): readonly Schedule[] {
    return [...this.#schedules.values()];
  }

  /**
   * @throws UnknownProviderError, ParametersError, CronExpressionError; LoaderError `schedule_not_possible` for what can't
   * be kept, `task_store_unavailable`
   */
  create({ provider, parameters, cron, timezone, catchUp }: NewSchedule): Schedule {
    const { runner, store } = this.#options;
    if (runner.check(provider, parameters).hasSecrets) {
      throw new LoaderError(
        'schedule_not_possible',
        `The parameters of ${provider} hold a secret, which is never stored: it can't be scheduled.`,
      );
    }
    if (this.#schedules.size >= MAX_SCHEDULES) {
      throw new LoaderError('schedule_not_possible', `There are ${MAX_SCHEDULES} schedules already; delete some.`);
    }
    const nowMs = this.#options.now();
    const nextRunAtMs = new CronExpression(cron, timezone).next(nowMs);
    if (nextRunAtMs === null) throw new CronExpressionError('cron', 'has no time that is still to come');
    const origin = { id: randomUUID(), createdAtMs: nowMs, nextRunAtMs, lastRun: null };
    const schedule: Schedule = { provider, parameters, cron, timezone, catchUp, ...origin };
    store.save(schedule);
    this.#schedules.set(schedule.id, schedule);
    this.#wait();
    return schedule;
  }

  /** Removes a schedule, and answers it; tasks that it began go on. @throws LoaderError `schedule_not_found` */
  remove(id: string): Schedule {
    const schedule = this.#schedules.get(id);
    if (schedule === undefined) throw new LoaderError('schedule_not_found', 'There is no schedule with this id.');
    this.#options.store.remove(id);
    this.#schedules.delete(id);
    return schedule;
  }

  /** Begins what is due by now. */
  tick(): void {
    for (const schedule of this.list()) this.#look(schedule);
    this.#wait();
  }

  #look(schedule: Schedule): void {
    const nowMs = this.#options.now();
    const nextRunAtMs = new CronExpression(schedule.cron, schedule.timezone).next(nowMs);
    const dueAtMs = schedule.nextRunAtMs;
    if (dueAtMs !== null && dueAtMs <= nowMs) {
      // The time is used up before the task begins: a Loader that dies in between does not begin it twice.
      this.#save({ ...schedule, nextRunAtMs });
      this.#save({ ...schedule, nextRunAtMs, lastRun: this.#run(schedule, dueAtMs, nowMs) });
    } else if (nextRunAtMs !== null && (dueAtMs === null || nextRunAtMs < dueAtMs)) {
      this.#save({ ...schedule, nextRunAtMs }); // The clock was set back.
    }
  }

  #run(schedule: Schedule, dueAtMs: number, nowMs: number): ScheduledRun {
    const { runner, logger } = this.#options;
    const outcome = (rest: Omit<ScheduledRun, 'dueAtMs'>): ScheduledRun => {
      logger.info({ schedule: schedule.id, provider: schedule.provider, ...rest }, 'A schedule was due');
      return { dueAtMs, ...rest };
    };
    if (nowMs - dueAtMs > MAX_LATENESS_MS && !schedule.catchUp) {
      return outcome({ outcome: 'missed', task: null, reason: 'The Loader was not running at that time.' });
    }
    try {
      const task = runner.create(schedule.provider, schedule.parameters, schedule.id);
      if (task !== undefined) return outcome({ outcome: 'started', task: task.uid, reason: null });
      return outcome({ outcome: 'skipped', task: null, reason: 'A task of the same provider was in progress.' });
    } catch (error) {
      logger.error({ err: error, schedule: schedule.id }, 'A scheduled task could not begin');
      const reason = error instanceof LoaderError ? error.message : 'Internal error; the log of the Loader tells more.';
      return outcome({ outcome: 'failed', task: null, reason });
    }
  }

  /** What is in memory counts until the next start, also where it can't be written. */
  #save(schedule: Schedule): void {
    this.#schedules.set(schedule.id, schedule);
    try {
      this.#options.store.save(schedule);
    } catch (error) {
      this.#options.logger.error({ err: error, schedule: schedule.id }, 'A schedule could not be written');
    }
  }

  #wait(): void {
    clearTimeout(this.#timer);
    if (this.#isStopped) return;
    const times = this.list().flatMap(({ nextRunAtMs }) => nextRunAtMs ?? []);
    const sleepMs = Math.min(MAX_SLEEP_MS, ...times.map((timeMs) => timeMs - this.#options.now()));
    this.#timer = setTimeout(
      () => {
        this.tick();
      },
      Math.max(0, sleepMs),
    );
    this.#timer.unref();
  }
}
