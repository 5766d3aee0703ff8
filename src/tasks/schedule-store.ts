import type { DatabaseSync, SQLOutputValue } from 'node:sqlite';
import type { Schedule, DueTime } from './schedule.ts';
import { withStoreErrors } from './store-error.ts';
import type { JsonObject } from '../json.ts';

/** Keeps the schedules on disk. @throws LoaderError `task_store_unavailable` from every method */
export class ScheduleStore {
  readonly #database: DatabaseSync;

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  /** Returns the schedules in the order of their creation. */
  list(): readonly Schedule[] {
    return withStoreErrors(() => this.#database.prepare('SELECT * FROM schedules ORDER BY seq').all().map(toSchedule));
  }

  /** Adds a schedule, or updates its next and last time. */
  save(schedule: Schedule): void {
    withStoreErrors(() =>
      this.#database
        .prepare(
          `INSERT INTO schedules
             (id, provider, parameters, cron, timezone, catch_up, created_at, next_run_at, last_run)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (id) DO UPDATE SET next_run_at = excluded.next_run_at, last_run = excluded.last_run`,
        )
        .run(
          schedule.id,
          schedule.provider,
          JSON.stringify(schedule.parameters),
          schedule.cron,
          schedule.timezone,
          schedule.catchUp ? 1 : 0,
          schedule.createdAtMs,
          schedule.nextDueAtMs,
          JSON.stringify(schedule.lastDue),
        ),
    );
  }

  remove(id: string): void {
    withStoreErrors(() => this.#database.prepare('DELETE FROM schedules WHERE id = ?').run(id));
  }
}

function toSchedule(row: Record<string, SQLOutputValue>): Schedule {
  return {
    id: String(row['id']),
    provider: String(row['provider']),
    parameters: JSON.parse(String(row['parameters'])) as JsonObject,
    cron: String(row['cron']),
    timezone: String(row['timezone']),
    catchUp: row['catch_up'] === 1,
    createdAtMs: Number(row['created_at']),
    nextDueAtMs: row['next_run_at'] as number | null,
    lastDue: JSON.parse(String(row['last_run'])) as DueTime | null,
  };
}
