import { Cron } from 'croner';
import { InputError } from '../errors.ts';

/** The fields of a pattern with six of them; without the first, the seconds are 0. */
const FIELDS = [
  ['seconds', '0 to 59'],
  ['minutes', '0 to 59'],
  ['hours', '0 to 23'],
  ['days of the month', '1 to 31 or L'],
  ['months', '1 to 12 or JAN to DEC'],
  ['days of the week', '0 to 7 or SUN to SAT'],
] as const;

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
    if (!isTimeZone(timezone)) {
      throw valueError('timezone', 'timezone must be an IANA time zone, such as UTC or Europe/Berlin');
    }
    // The library also takes dates, names such as @daily, and a seventh field for years.
    const fields = pattern.trim().split(/\s+/);
    if (fields.length !== 5 && fields.length !== 6) throw valueError('cron', countFault(fields.length));
    const cron = parse(pattern, timezone);
    if (cron === undefined) throw valueError('cron', fieldFault(fields.length === 5 ? ['0', ...fields] : fields));
    this.#cron = cron;
  }

  /** The first time after `timeMs`; null when there is none. Both in ms since 1970. */
  next(timeMs: number): number | null {
    return this.#cron.nextRun(new Date(timeMs))?.getTime() ?? null;
  }
}

/** Whether a text is the name of a time zone. JavaScript takes offsets such as `+02:00` too, which know no summer time. */
export function isTimeZone(text: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: text });
    return !/^[+-]/.test(text);
  } catch {
    return false;
  }
}

function parse(pattern: string, timezone = 'UTC'): Cron | undefined {
  try {
    return new Cron(pattern, { timezone, paused: true });
  } catch {
    return undefined;
  }
}

function countFault(count: number): string {
  const want = 'five (minutes, hours, days of the month, months, days of the week), or six with seconds before them';
  return `cron must have ${want}, and has ${count === 1 ? 'one field' : `${count} fields`}`;
}

/** Says which of six fields is wrong, and what it must be. */
function fieldFault(fields: readonly string[]): string {
  const index = fields.findIndex((field, at) => {
    const alone = fields.map((_, other) => (other === at ? field : '*'));
    return parse(alone.join(' ')) === undefined;
  });
  const [name, values] = FIELDS[index] ?? ['fields', 'a cron pattern'];
  return `the ${name} of cron must be *, or ${values}, or lists, ranges and steps of these, such as 1,15 or 1-5 or */10`;
}

function valueError(field: 'cron' | 'timezone', message: string): InputError {
  return new InputError([{ type: 'value_error', path: [field], message }]);
}
