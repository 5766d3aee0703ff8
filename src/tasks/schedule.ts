import type { JsonObject } from '../json.ts';

/** What became of a schedule's time: a task, or none because its provider was busy, the Loader down, or another reason. */
export type ScheduledOutcome = 'started' | 'skipped' | 'missed' | 'failed';

export interface ScheduledRun {
  /** When it was due, in ms since 1970. */
  readonly dueAtMs: number;
  readonly outcome: ScheduledOutcome;
  /** The uid of the task that was started. */
  readonly task: string | null;
  /** Says why there is none. */
  readonly reason: string | null;
}

/** Begins tasks of a provider at times of a cron pattern. */
export interface Schedule {
  /** A UUID. */
  readonly id: string;
  readonly provider: string;
  readonly parameters: JsonObject;
  readonly cron: string;
  readonly timezone: string;
  /** Whether times that passed while the Loader was down are made up for by one run at its start. */
  readonly catchUp: boolean;
  readonly createdAtMs: number;
  /** Null when its pattern has no further time. */
  readonly nextRunAtMs: number | null;
  readonly lastRun: ScheduledRun | null;
}
