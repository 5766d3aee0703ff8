import { Cron } from 'croner';
import { ScheduleFieldError } from './schedule-field-error.ts';

/**
 * The times of a schedule: a cron pattern of five fields, or six with seconds first, in an IANA time zone.
 *
 * One fixed time of the day, such as `30 2 * * *`, comes once each day: where clocks go forward over it, at the end of the
 * gap; where they go back over it, the first time. Other patterns, with lists, ranges, steps or wildcards, go by the
 * clock on the wall: times that it skips are skipped, and those that it repeats are repeated.
 */
export class CronExpression {
  readonly #cron: Cron;

  /** @throws ScheduleFieldError */
  constructor(pattern: string, timezone: string) {
    try {
      new Intl.DateTimeFormat('en', { timeZone: timezone });
    } catch {
      throw new ScheduleFieldError('timezone', 'must be an IANA time zone, such as UTC or Europe/Berlin');
    }
    try {
      // The library takes dates and years as well.
      if (![5, 6].includes(pattern.trim().split(/\s+/).length)) throw new Error('not so many fields');
      this.#cron = new Cron(pattern, { timezone, paused: true });
    } catch {
      throw new ScheduleFieldError('cron', 'must be a cron pattern of five fields, such as 30 3 * * 1-5');
    }
  }

  /** The first time after `timeMs`; null when there is none. Both in ms since 1970. */
  next(timeMs: number): number | null {
    return this.#cron.nextRun(new Date(timeMs))?.getTime() ?? null;
  }
}
