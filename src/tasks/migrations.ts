import type { DatabaseSync } from 'node:sqlite';
import { LoaderError } from '../errors.ts';
import { inTransaction } from './transaction.ts';

/**
 * Each migration leads from one version of the schema to the next. The `user_version` of a database counts the migrations
 * that it has. Devices have them already: add new ones at the end, and change none.
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
];

/** Brings the schema up to date. @throws LoaderError `task_store_unavailable` for the database of a newer Loader */
export function migrate(database: DatabaseSync): void {
  const version = Number(database.prepare('PRAGMA user_version').get()?.['user_version']);
  if (version > MIGRATIONS.length) {
    throw new LoaderError(
      'task_store_unavailable',
      'A newer Loader made the database of the tasks; use that Loader, or move tasks.db out of STATE_DIR.',
    );
  }
  for (const [index, migration] of MIGRATIONS.entries()) {
    if (index >= version) setVersion(database, index + 1, migration);
  }
  // Only a write shows that the disk has room.
  setVersion(database, MIGRATIONS.length);
}

function setVersion(database: DatabaseSync, version: number, migration = ''): void {
  inTransaction(database, () => {
    database.exec(`${migration}; PRAGMA user_version = ${version}`);
  });
}
