import type { JsonObject } from '../json.ts';

/**
 * What a schedule did at a time: it started a task, it skipped the time because its provider was busy, it missed the time
 * because the Loader was down, or it failed to start a task.
 */
export const DUE_OUTCOMES = ['started', 'skipped', 'missed', 'failed'] as const;
export type DueOutcome = (typeof DUE_OUTCOMES)[number];

/** A time of a schedule that has come, with what the schedule did. */
export interface DueTime {
  /** When it was due, in ms since 1970. */
  readonly dueAtMs: number;
  readonly outcome: DueOutcome;
  /** The uid of the task that the schedule started. */
  readonly task: string | null;
  /** Why the schedule started no task, for people. */
  readonly reason: string | null;
}

/** Starts tasks of a provider at the times of a cron pattern. */
export interface Schedule {
  /** A UUID. */
  readonly id: string;
  /** For people. */
  readonly name: string | null;
  readonly provider: string;
  readonly parameters: JsonObject;
  readonly cron: string;
  readonly timezone: string;
  /** Whether the Loader starts one task at its own start for the times that passed while it was down. */
  readonly catchUp: boolean;
  /** Whether it starts nothing until it goes on. */
  readonly isPaused: boolean;
  /** In ms since 1970. */
  readonly createdAtMs: number;
  /** In ms since 1970; null while it is paused, and when the pattern has no further time. */
  readonly nextDueAtMs: number | null;
  /** The time that came last. */
  readonly lastDue: DueTime | null;
}
