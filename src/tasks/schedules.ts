import { randomUUID } from 'node:crypto';
import { asLoaderError, InputError, LoaderError } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import { CronExpression } from './cron-expression.ts';
import type { ScheduleStore } from './schedule-store.ts';
import type { DueTime, Schedule } from './schedule.ts';
import type { TaskRunner } from './task-runner.ts';
import type { Task } from './task.ts';
import type { JsonObject } from '../json.ts';

export interface SchedulesOptions {
  readonly store: ScheduleStore;
  readonly runner: TaskRunner;
  readonly logger: Logger;
  /** ms since 1970; it may jump, as the clocks of devices do. */
  readonly now?: () => number;
}

/** What can be changed of a schedule. */
export type ScheduleSettings = Pick<Schedule, 'name' | 'parameters' | 'cron' | 'timezone' | 'catchUp' | 'isPaused'>;

/** Without a name it has none, and it is not paused. */
export type NewSchedule = Pick<Schedule, 'provider'> &
  Omit<ScheduleSettings, 'name' | 'isPaused'> &
  Partial<ScheduleSettings>;

/** A schedule with its times: null where this version of the Loader does not know the time zone or the pattern. */
interface Entry {
  schedule: Schedule;
  readonly times: CronExpression | null;
}

/** The longest sleep before the clock is read again, in ms: it may be set meanwhile. */
const MAX_SLEEP_MS = 30_000;
/** How often a late time is tried whose provider is busy, in ms. */
const CATCH_UP_MS = 1_000;
/** A time that passed longer ago than this, in ms, is late. */
const MAX_LATENESS_MS = 60_000;
/** A clock before this time is not set yet: many devices begin in 1970. No Loader with schedules is older. */
const CLOCK_UNSET_BEFORE_MS = Date.UTC(2026, 0);
/** A clock that was set back by more than this, in ms, showed times that never were. */
const SMALL_CORRECTION_MS = 24 * 60 * 60 * 1000;
const MAX_SCHEDULES = 1_000;

/** Begins tasks at the times of their schedules. */
export class Schedules {
  readonly #options: Required<SchedulesOptions>;
  /** By id, in the order of their creation. */
  readonly #entries = new Map<string, Entry>();
  /** What the clock showed at the last tick. */
  #tickedAtMs = -Infinity;
  /** What the clock showed at the last tick at which it was set. */
  #lastSetMs = Infinity;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;

  constructor(options: SchedulesOptions) {
    this.#options = { now: Date.now, ...options };
  }

  /** Reads the schedules, handles the times that have passed, and waits for the next. @throws LoaderError `task_store_unavailable` */
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

  /** @throws InputError; LoaderError `too_many_schedules`, `task_store_unavailable` */
  create({ provider, ...given }: NewSchedule): Schedule {
    const parameters = this.#checkParameters(provider, given.parameters);
    if (this.#entries.size >= MAX_SCHEDULES) {
      throw new LoaderError('too_many_schedules', `There are ${MAX_SCHEDULES} schedules already; delete one first.`);
    }
    const origin = { id: randomUUID(), provider, createdAtMs: this.#options.now(), lastDue: null };
    return this.#keep({ ...origin, name: null, isPaused: false, ...given, parameters });
  }

  /**
   * Changes a schedule, and returns it as it is then. Its next time is found anew.
   *
   * @throws InputError; LoaderError `schedule_not_found`, `task_store_unavailable`
   */
  change(id: string, settings: Partial<ScheduleSettings>): Schedule {
    const { schedule } = this.#entry(id);
    const parameters =
      settings.parameters === undefined
        ? schedule.parameters
        : this.#checkParameters(schedule.provider, settings.parameters);
    return this.#keep({ ...schedule, ...settings, parameters });
  }

  /** Begins a task of a schedule at once, paused or not. @throws as TaskRunner.begin; LoaderError `schedule_not_found` */
  run(id: string): Task {
    const { provider, parameters } = this.#entry(id).schedule;
    return this.#options.runner.begin(provider, parameters, id);
  }

  #checkParameters(provider: string, given: JsonObject): JsonObject {
    const { parameters, hasSecrets } = this.#options.runner.check(provider, given);
    if (!hasSecrets) return parameters;
    throw valueError('provider', "provider needs a secret, which is never kept: it can't be scheduled");
  }

  /** Writes a schedule that is new or changed, with its next time. */
  #keep(settings: Omit<Schedule, 'nextDueAtMs'>): Schedule {
    const times = new CronExpression(settings.cron, settings.timezone);
    const next = times.next(this.#options.now());
    if (next === null) throw valueError('cron', 'cron must have a time that is still to come');
    const schedule: Schedule = { ...settings, nextDueAtMs: settings.isPaused ? null : next };
    this.#options.store.save(schedule);
    this.#entries.set(schedule.id, { schedule, times });
    this.#wait();
    return schedule;
  }

  /** Removes a schedule, and returns it; the tasks that it began go on. @throws LoaderError `schedule_not_found` */
  remove(id: string): Schedule {
    const { schedule } = this.#entry(id);
    this.#options.store.remove(id);
    this.#entries.delete(id);
    return schedule;
  }

  #entry(id: string): Entry {
    const entry = this.#entries.get(id);
    if (entry !== undefined) return entry;
    throw new LoaderError('schedule_not_found', 'No schedule has this id: GET /schedules lists those that there are.');
  }

  /** Begins the tasks that are due by now. */
  tick(): void {
    const nowMs = this.#options.now();
    const isClockSet = nowMs >= CLOCK_UNSET_BEFORE_MS;
    const isClockSetBack = isClockSet && nowMs < this.#lastSetMs;
    if (isClockSet) this.#lastSetMs = nowMs;
    this.#tickedAtMs = nowMs;
    for (const entry of this.#entries.values()) {
      if (isClockSetBack) this.#bringForward(entry, nowMs);
      this.#beginIfDue(entry, nowMs);
    }
    this.#wait();
  }

  #readTimes({ id, cron, timezone }: Schedule): CronExpression | null {
    try {
      return new CronExpression(cron, timezone);
    } catch (error) {
      this.#options.logger.error(
        { err: error, schedule: id },
        'This version of the Loader does not know the times of a schedule; delete it and create it anew',
      );
      return null;
    }
  }

  /**
   * Brings the next time of a schedule forward after the clock was set back. A time that was used stays used, unless a
   * wrong clock showed it.
   */
  #bringForward(entry: Entry, nowMs: number): void {
    const { lastDue, nextDueAtMs, isPaused } = entry.schedule;
    if (isPaused) return;
    const usedMs = lastDue !== null && lastDue.dueAtMs - nowMs < SMALL_CORRECTION_MS ? lastDue.dueAtMs : nowMs;
    const next = entry.times?.next(Math.max(nowMs, usedMs)) ?? null;
    if (next !== null && (nextDueAtMs === null || next < nextDueAtMs)) this.#save(entry, { nextDueAtMs: next });
  }

  #beginIfDue(entry: Entry, nowMs: number): void {
    const dueAtMs = entry.schedule.nextDueAtMs;
    if (dueAtMs === null || dueAtMs > nowMs) return;
    const isLate = nowMs - dueAtMs > MAX_LATENESS_MS;
    if (isLate && entry.schedule.catchUp && this.#options.runner.isBusy(entry.schedule.provider)) return;
    const nextDueAtMs = entry.times?.next(nowMs) ?? null;
    // The time is used up before the task begins, so that a death in between does not begin a second task.
    const died: DueTime = { dueAtMs, outcome: 'failed', task: null, reason: 'The Loader died at that moment.' };
    this.#save(entry, { nextDueAtMs, lastDue: died });
    this.#save(entry, { lastDue: { dueAtMs, ...this.#begin(entry.schedule, isLate) } });
  }

  #begin(schedule: Schedule, isLate: boolean): Omit<DueTime, 'dueAtMs'> {
    const { runner, logger } = this.#options;
    const outcome = (due: Omit<DueTime, 'dueAtMs'>): Omit<DueTime, 'dueAtMs'> => {
      logger.info({ schedule: schedule.id, provider: schedule.provider, ...due }, 'A schedule was due');
      return due;
    };
    if (isLate && !schedule.catchUp) {
      const reason = 'The Loader was not running at that time, or its clock was set past it.';
      return outcome({ outcome: 'missed', task: null, reason });
    }
    try {
      const task = runner.create(schedule.provider, schedule.parameters, schedule.id);
      if (task !== undefined) return outcome({ outcome: 'started', task: task.uid, reason: null });
      return outcome({ outcome: 'skipped', task: null, reason: 'A task of the same provider was in progress.' });
    } catch (error) {
      logger.error({ err: error, schedule: schedule.id }, 'A schedule could not begin its task');
      return outcome({ outcome: 'failed', task: null, reason: asLoaderError(error).message });
    }
  }

  /** Where the store refuses the change, memory has it until the next start. */
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
    const times = this.list().flatMap(({ nextDueAtMs }) => nextDueAtMs ?? []);
    // A time that was due at the last tick and still is waits until its provider is idle.
    const sleeps = times.map((timeMs) => (timeMs > this.#tickedAtMs ? Math.max(0, timeMs - nowMs) : CATCH_UP_MS));
    this.#timer = setTimeout(() => this.tick(), Math.min(MAX_SLEEP_MS, ...sleeps));
    this.#timer.unref();
  }
}

function valueError(field: 'cron' | 'provider', message: string): InputError {
  return new InputError([{ type: 'value_error', path: [field], message }]);
}
