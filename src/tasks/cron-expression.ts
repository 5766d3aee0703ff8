import { Cron } from 'croner';
import { InputError } from '../errors.ts';

const CRON_MESSAGE =
  'cron must be a cron pattern of five fields, such as 30 3 * * 1-5, or of six, of which the first is the seconds';

/**
 * The times of a schedule: a cron pattern of five fields, or of six of which the first is the seconds, in an IANA time zone.
 *
 * One fixed time of the day, such as `30 2 * * *`, comes once each day. When clocks go forward over it, it comes at the
 * end of the gap; when they go back over it, it comes the first time. Other patterns, with lists, ranges, steps or
 * wildcards, follow the clock on the wall: times that it skips are skipped, and times that it repeats are repeated.
 */
export class CronExpression {
  readonly #cron: Cron;

  /** @throws InputError, whose fault is at `cron` or `timezone` */
  constructor(pattern: string, timezone: string) {
    try {
      new Intl.DateTimeFormat('en', { timeZone: timezone });
    } catch {
      throw valueError('timezone', 'timezone must be an IANA time zone, such as UTC or Europe/Berlin');
    }
    try {
      // The library also takes dates, names such as @daily, and a seventh field for years.
      if (![5, 6].includes(pattern.trim().split(/\s+/).length)) throw new Error('it has another number of fields');
      this.#cron = new Cron(pattern, { timezone, paused: true });
    } catch {
      throw valueError('cron', CRON_MESSAGE);
    }
  }

  /** The first time after `timeMs`; null when there is none. Both in ms since 1970. */
  next(timeMs: number): number | null {
    return this.#cron.nextRun(new Date(timeMs))?.getTime() ?? null;
  }
}

function valueError(field: 'cron' | 'timezone', message: string): InputError {
  return new InputError([{ type: 'value_error', path: [field], message }]);
}
