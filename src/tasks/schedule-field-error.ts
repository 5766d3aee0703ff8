import { LoaderError } from '../errors.ts';

/** A schedule that can't be; `field` is the one at fault. */
export class ScheduleFieldError extends LoaderError {
  readonly field: 'cron' | 'timezone' | 'provider';

  constructor(field: ScheduleFieldError['field'], message: string) {
    super('validation_failed', `${field} ${message}`);
    this.field = field;
  }
}
