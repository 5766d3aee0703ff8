import { Cron } from 'croner';
import { LoaderError } from '../errors.ts';

/** What is wrong with a schedule's times. */
export class CronExpressionError extends LoaderError {
  readonly field: 'cron' | 'timezone';

  constructor(field: 'cron' | 'timezone', message: string) {
    super('validation_failed', message);
    this.field = field;
  }
}

/**
 * The times of a schedule: a cron pattern of five fields, or six with seconds first, in an IANA time zone.
 *
 * Where clocks go forward, a time that is skipped becomes the first one after the gap. Where they go back, a fixed time
 * that comes twice counts once, the first time; a pattern with steps or wildcards goes on through both.
 */
export class CronExpression {
  readonly #cron: Cron;

  /** @throws CronExpressionError */
  constructor(pattern: string, timezone: string) {
    try {
      new Intl.DateTimeFormat('en', { timeZone: timezone });
    } catch {
      throw new CronExpressionError('timezone', 'must be an IANA time zone, such as UTC or Europe/Berlin');
    }
    try {
      this.#cron = new Cron(pattern, { timezone, paused: true });
    } catch {
      throw new CronExpressionError('cron', 'must be a cron pattern of five fields, such as 30 3 * * 1-5');
    }
  }

  /** The first time after `timeMs`; null when there is none. Both in ms since 1970. */
  next(timeMs: number): number | null {
    return this.#cron.nextRun(new Date(timeMs))?.getTime() ?? null;
  }
}
