import type { DatabaseSync } from 'node:sqlite';
import { asRecord, parseJson, type JsonObject } from '../json.ts';
import type { Logger } from '../log/logger.ts';
import { DamageAlarm } from './damage-alarm.ts';
import { DamagedRows } from './damaged-rows.ts';
import { isCount, isId, isNullOr, isText, isTime, numberOrNull, textOf, type Row } from './row.ts';
import { DUE_OUTCOMES, type DueTime, type Schedule } from './schedule.ts';
import { Statements } from './statements.ts';

/** Keeps the schedules on disk. @throws LoaderError `task_store_unavailable` from every method */
export class ScheduleStore {
  readonly #statements: Statements;
  readonly #damagedRows: DamagedRows;
  readonly #alarm = new DamageAlarm();

  constructor(database: DatabaseSync, logger: Logger) {
    this.#statements = new Statements(database);
    this.#damagedRows = new DamagedRows(logger);
  }

  /** Resolves when the database turns out to be damaged. */
  get damaged(): Promise<undefined> {
    return this.#alarm.found;
  }

  /** Returns the schedules in the order of their creation, without those whose rows are damaged. */
  list(): readonly Schedule[] {
    return this.#alarm.guard(() =>
      this.#statements
        .prepare('SELECT * FROM schedules ORDER BY seq')
        .all()
        .flatMap((row) => this.#damagedRows.read(row, readSchedule, 'id') ?? []),
    );
  }

  /** Adds a schedule, or changes it. */
  save(schedule: Schedule): void {
    this.#alarm.guard(() =>
      this.#statements
        .prepare(
          `INSERT INTO schedules
             (id, name, provider, parameters, cron, timezone, catch_up, is_paused, created_at, next_run_at, last_run)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (id) DO UPDATE SET
             name = excluded.name, parameters = excluded.parameters, cron = excluded.cron,
             timezone = excluded.timezone, catch_up = excluded.catch_up, is_paused = excluded.is_paused,
             next_run_at = excluded.next_run_at, last_run = excluded.last_run`,
        )
        .run(
          schedule.id,
          schedule.name,
          schedule.provider,
          JSON.stringify(schedule.parameters),
          schedule.cron,
          schedule.timezone,
          schedule.catchUp ? 1 : 0,
          schedule.isPaused ? 1 : 0,
          schedule.createdAtMs,
          schedule.nextDueAtMs,
          JSON.stringify(schedule.lastDue),
        ),
    );
  }

  remove(id: string): void {
    this.#alarm.guard(() => this.#statements.prepare('DELETE FROM schedules WHERE id = ?').run(id));
  }
}

/** The schedule in a row; undefined where the row is damaged. */
export function readSchedule(row: Row): Schedule | undefined {
  const parameters = asRecord(parseJson(textOf(row, 'parameters')));
  const lastDue = parseJson(textOf(row, 'last_run'));
  const isSound =
    isId(row['id']) &&
    ['provider', 'cron', 'timezone'].every((column) => isText(row[column])) &&
    isNullOr(row['name'], isText) &&
    isCount(row['catch_up'], 1) &&
    isCount(row['is_paused'], 1) &&
    isTime(row['created_at']) &&
    isNullOr(row['next_run_at'], isTime) &&
    isNullOr(lastDue, isDueTime);
  if (!isSound || parameters === undefined) return undefined;
  return {
    id: String(row['id']),
    name: row['name'] === null ? null : textOf(row, 'name'),
    provider: String(row['provider']),
    parameters: parameters as JsonObject,
    cron: String(row['cron']),
    timezone: String(row['timezone']),
    catchUp: Number(row['catch_up']) === 1,
    isPaused: Number(row['is_paused']) === 1,
    createdAtMs: Number(row['created_at']),
    nextDueAtMs: numberOrNull(row['next_run_at']),
    lastDue: lastDue as DueTime | null,
  };
}

function isDueTime(value: unknown): boolean {
  const { dueAtMs, outcome, task, reason } = asRecord(value) ?? {};
  const isSafeTime = Number.isSafeInteger(dueAtMs) && isTime(BigInt(Number(dueAtMs)));
  return (
    isSafeTime && DUE_OUTCOMES.some((known) => known === outcome) && isNullOr(task, isId) && isNullOr(reason, isText)
  );
}
