import { DatabaseSync } from 'node:sqlite';
import { LoaderError } from '../errors.ts';
import { DamagedDatabaseError } from './store-error.ts';
import { inTransaction } from './transaction.ts';

/**
 * Each migration leads from one version of the schema to the next. The `user_version` of a database counts the migrations
 * that it has. Devices have them already: add new ones at the end, and change none. Each must change the schema, by which
 * a version is known where the number is damaged.
 */
export const MIGRATIONS = [
  `
  CREATE TABLE tasks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL UNIQUE,
    provider TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('in_progress', 'complete', 'failed', 'cancelled', 'interrupted')),
    progress INTEGER NOT NULL,
    bytes_done INTEGER NOT NULL,
    bytes_total INTEGER,
    parameters TEXT NOT NULL,
    result TEXT NOT NULL,
    error TEXT,
    code TEXT,
    attempt INTEGER NOT NULL,
    retry_of TEXT,
    schedule_id TEXT,
    created_at INTEGER NOT NULL,
    finished_at INTEGER
  ) STRICT;
  CREATE UNIQUE INDEX one_task_in_progress ON tasks (provider) WHERE status = 'in_progress';
  CREATE INDEX tasks_by_provider ON tasks (provider, seq);
  CREATE INDEX tasks_by_status ON tasks (status, seq);
  CREATE INDEX tasks_by_end ON tasks (finished_at);
  CREATE TRIGGER finished_tasks_stay BEFORE UPDATE ON tasks WHEN OLD.status <> 'in_progress'
    BEGIN SELECT RAISE(ABORT, 'a finished task can not change'); END;

  CREATE TABLE task_logs (
    task INTEGER NOT NULL REFERENCES tasks (seq) ON DELETE CASCADE,
    line INTEGER NOT NULL,
    time INTEGER NOT NULL,
    level TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (task, line)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE pending_retries (
    task INTEGER PRIMARY KEY REFERENCES tasks (seq) ON DELETE CASCADE,
    attempt INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE schedules (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    provider TEXT NOT NULL,
    parameters TEXT NOT NULL,
    cron TEXT NOT NULL,
    timezone TEXT NOT NULL,
    catch_up INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    next_run_at INTEGER,
    last_run TEXT NOT NULL
  ) STRICT;
  `,
  `
  ALTER TABLE schedules ADD COLUMN name TEXT;
  ALTER TABLE schedules ADD COLUMN is_paused INTEGER NOT NULL DEFAULT 0;
  `,
];

/**
 * Brings the schema up to date.
 *
 * @throws LoaderError `task_store_unavailable` for the database of a newer Loader; DamagedDatabaseError where the tables
 * are not those of the version that the database tells
 */
export function migrate(database: DatabaseSync): void {
  const version = versionOf(database);
  const parts = partsOf(database);
  // With the tables of this Loader it is this Loader's database, whatever has become of the number.
  if (!hasParts(parts, MIGRATIONS.length)) {
    if (version > MIGRATIONS.length) {
      throw new LoaderError(
        'task_store_unavailable',
        'A newer Loader made the database of the tasks; use that Loader, or move tasks.db out of STATE_DIR.',
      );
    }
    if (version === 0 ? parts.length > 0 : !hasParts(parts, version)) {
      throw new DamagedDatabaseError('its tables are not those of the Loader');
    }
    for (const [index, migration] of MIGRATIONS.entries()) {
      if (index >= version) setVersion(database, index + 1, migration);
    }
  }
  // Only a write shows that the disk has room.
  setVersion(database, MIGRATIONS.length);
}

function versionOf(database: DatabaseSync): number {
  return Number(database.prepare('PRAGMA user_version').get()?.['user_version']);
}

/** The tables, indexes and triggers of a database, each as one text. */
function partsOf(database: DatabaseSync): readonly string[] {
  const parts = database.prepare('SELECT type, name, tbl_name, sql FROM sqlite_schema').all();
  return parts.map((part) => JSON.stringify(part));
}

/** Whether all parts of a version are there. A user may have added an index. */
function hasParts(parts: readonly string[], version: number): boolean {
  const database = new DatabaseSync(':memory:');
  try {
    database.exec(MIGRATIONS.slice(0, version).join(';'));
    return partsOf(database).every((part) => parts.includes(part));
  } finally {
    database.close();
  }
}

function setVersion(database: DatabaseSync, version: number, migration = ''): void {
  inTransaction(database, () => {
    database.exec(`${migration}; PRAGMA user_version = ${version}`);
  });
}
