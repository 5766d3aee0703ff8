import { randomUUID } from 'node:crypto';
import { asLoaderError, LoaderError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { CronExpression } from './cron-expression.ts';
import { ScheduleFieldError } from './schedule-field-error.ts';
import type { ScheduleStore } from './schedule-store.ts';
import type { Schedule, ScheduledRun } from './schedule.ts';
import type { TaskRunner } from './task-runner.ts';
import type { JsonObject } from '../json.ts';

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

/** A schedule with its times; null where another version of the Loader knew a time zone that this one doesn't. */
interface Entry {
  schedule: Schedule;
  readonly times: CronExpression | null;
}

/** The longest sleep between two looks at the clock, in ms: it may be set meanwhile. */
const MAX_SLEEP_MS = 30_000;
/** Before a run that could not be made up for yet is tried again, in ms. */
const CATCH_UP_MS = 1_000;
/** A time that passed longer ago than this, in ms, was missed. */
const MAX_LATENESS_MS = 60_000;
/** A clock before this is not set yet: those of many devices begin in 1970. No Loader with schedules is older. */
const CLOCK_UNSET_BEFORE_MS = Date.UTC(2026, 0);
/** A clock that is set back by more, in ms, was wrong altogether. */
const SMALL_CORRECTION_MS = 24 * 60 * 60 * 1000;
const MAX_SCHEDULES = 1_000;

/** Begins tasks at their times. */
export class Schedules {
  readonly #options: Required<SchedulesOptions>;
  /** By id, in the order of their creation. */
  readonly #entries = new Map<string, Entry>();
  /** The last look at the clock, and the last one at which it was set. */
  #lookedAtMs = -Infinity;
  #lastTickMs = Infinity;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;

  constructor(options: SchedulesOptions) {
    this.#options = { now: Date.now, ...options };
  }

  /** Reads the schedules, makes up for missed times, and waits for the next. @throws LoaderError `task_store_unavailable` */
  start(): void {
    for (const schedule of this.#options.store.list()) {
      this.#entries.set(schedule.id, { schedule, times: this.#readTimes(schedule) });
    }
    this.tick();
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  list(): readonly Schedule[] {
    return [...this.#entries.values()].map(({ schedule }) => schedule);
  }

  /**
   * @throws UnknownProviderError, ParametersError, ScheduleFieldError; LoaderError `too_many_schedules`,
   * `task_store_unavailable`
   */
  create({ provider, cron, timezone, catchUp, ...given }: NewSchedule): Schedule {
    const { runner, store } = this.#options;
    const { parameters, hasSecrets } = runner.check(provider, given.parameters);
    if (hasSecrets)
      throw new ScheduleFieldError('provider', "needs a secret, which is never kept: it can't be scheduled");
    if (this.#entries.size >= MAX_SCHEDULES) {
      throw new LoaderError('too_many_schedules', `There are ${MAX_SCHEDULES} schedules already; delete some.`);
    }
    const createdAtMs = this.#options.now();
    const times = new CronExpression(cron, timezone);
    const nextRunAtMs = times.next(createdAtMs);
    if (nextRunAtMs === null) throw new ScheduleFieldError('cron', 'has no time that is still to come');
    const origin = { id: randomUUID(), createdAtMs, nextRunAtMs, lastRun: null };
    const schedule: Schedule = { provider, parameters, cron, timezone, catchUp, ...origin };
    store.save(schedule);
    this.#entries.set(schedule.id, { schedule, times });
    this.#wait();
    return schedule;
  }

  /** Removes a schedule, and answers it; tasks that it began go on. @throws LoaderError `schedule_not_found` */
  remove(id: string): Schedule {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw new LoaderError('schedule_not_found', 'There is no schedule with this id.');
    this.#options.store.remove(id);
    this.#entries.delete(id);
    return entry.schedule;
  }

  /** Begins what is due by now. */
  tick(): void {
    const nowMs = this.#options.now();
    const isClockSet = nowMs >= CLOCK_UNSET_BEFORE_MS;
    const isClockSetBack = isClockSet && nowMs < this.#lastTickMs;
    if (isClockSet) this.#lastTickMs = nowMs;
    this.#lookedAtMs = nowMs;
    for (const entry of this.#entries.values()) {
      if (isClockSetBack) this.#lookAgain(entry, nowMs);
      this.#look(entry, nowMs);
    }
    this.#wait();
  }

  #readTimes({ id, cron, timezone }: Schedule): CronExpression | null {
    try {
      return new CronExpression(cron, timezone);
    } catch (error) {
      this.#options.logger.error({ err: error, schedule: id }, 'A schedule has times that are not known any more');
      return null;
    }
  }

  /** The next time may come sooner than it seemed: a time that a wrong clock took for past is used again, others not. */
  #lookAgain(entry: Entry, nowMs: number): void {
    const { lastRun, nextRunAtMs } = entry.schedule;
    const usedMs = lastRun !== null && lastRun.dueAtMs - nowMs < SMALL_CORRECTION_MS ? lastRun.dueAtMs : nowMs;
    const next = entry.times?.next(Math.max(nowMs, usedMs)) ?? null;
    if (next !== null && (nextRunAtMs === null || next < nextRunAtMs)) this.#save(entry, { nextRunAtMs: next });
  }

  #look(entry: Entry, nowMs: number): void {
    const dueAtMs = entry.schedule.nextRunAtMs;
    if (dueAtMs === null || dueAtMs > nowMs) return;
    const isLate = nowMs - dueAtMs > MAX_LATENESS_MS;
    if (isLate && entry.schedule.catchUp && this.#options.runner.isBusy(entry.schedule.provider)) return;
    const nextRunAtMs = entry.times?.next(nowMs) ?? null;
    // The time is used up before the task begins: a Loader that dies in between does not begin it twice.
    const died: ScheduledRun = { dueAtMs, outcome: 'failed', task: null, reason: 'The Loader died at that moment.' };
    this.#save(entry, { nextRunAtMs, lastRun: died });
    this.#save(entry, { lastRun: { dueAtMs, ...this.#run(entry.schedule, isLate) } });
  }

  #run(schedule: Schedule, isLate: boolean): Omit<ScheduledRun, 'dueAtMs'> {
    const { runner, logger } = this.#options;
    const outcome = (run: Omit<ScheduledRun, 'dueAtMs'>): Omit<ScheduledRun, 'dueAtMs'> => {
      logger.info({ schedule: schedule.id, provider: schedule.provider, ...run }, 'A schedule was due');
      return run;
    };
    if (isLate && !schedule.catchUp) {
      const reason = 'The time passed while the Loader was not running, or its clock was set.';
      return outcome({ outcome: 'missed', task: null, reason });
    }
    try {
      const task = runner.create(schedule.provider, schedule.parameters, schedule.id);
      if (task !== undefined) return outcome({ outcome: 'started', task: task.uid, reason: null });
      return outcome({ outcome: 'skipped', task: null, reason: 'A task of the same provider was in progress.' });
    } catch (error) {
      logger.error({ err: error, schedule: schedule.id }, 'A scheduled task could not begin');
      return outcome({ outcome: 'failed', task: null, reason: asLoaderError(error).message });
    }
  }

  /** What is in memory counts until the next start, also where it can't be written. */
  #save(entry: Entry, change: Partial<Schedule>): void {
    entry.schedule = { ...entry.schedule, ...change };
    try {
      this.#options.store.save(entry.schedule);
    } catch (error) {
      this.#options.logger.error({ err: error, schedule: entry.schedule.id }, 'A schedule could not be written');
    }
  }

  #wait(): void {
    clearTimeout(this.#timer);
    if (this.#isStopped) return;
    const nowMs = this.#options.now();
    const times = this.list().flatMap(({ nextRunAtMs }) => nextRunAtMs ?? []);
    // What was due at the last look and still is waits for its provider.
    const sleeps = times.map((timeMs) => (timeMs > this.#lookedAtMs ? Math.max(0, timeMs - nowMs) : CATCH_UP_MS));
    this.#timer = setTimeout(() => this.tick(), Math.min(MAX_SLEEP_MS, ...sleeps));
    this.#timer.unref();
  }
}
