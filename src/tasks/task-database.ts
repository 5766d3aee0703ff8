import { existsSync, rmSync } from 'node:fs';
import { rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { hasErrorCode, LoaderError, systemErrorCode } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { makeFolder } from '../files/folders.ts';

const FILE_NAME = 'tasks.db';
/** The write-ahead log is cut back to this many bytes. */
const MAX_WAL_BYTES = 4 * 1024 * 1024;

/** From each version of the schema to the next; a database's `user_version` counts those that it has. Only add to it. */
const MIGRATIONS = [
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

/**
 * Opens the database of the tasks in `stateDir`, and brings its schema up to date. This process alone may use it until
 * it is closed. A file that is damaged is set aside under another name, and a new one takes its place.
 *
 * @throws LoaderError `task_store_unavailable`
 */
export async function openTaskDatabase(stateDir: string, logger: Logger): Promise<DatabaseSync> {
  const filePath = path.join(stateDir, FILE_NAME);
  try {
    await makeFolder(stateDir);
    try {
      return openFile(filePath);
    } catch (error) {
      if (!isDamaged(error)) throw error;
      const asidePath = `${filePath}.damaged-${new Date().toISOString().replaceAll(':', '-')}`;
      await setAside(filePath, asidePath);
      logger.error(
        { err: error, file: path.basename(asidePath) },
        'The database of the tasks is damaged: it was set aside in STATE_DIR, and history and schedules begin anew',
      );
      return openFile(filePath);
    }
  } catch (error) {
    throw toStoreError(error);
  }
}

/**
 * Looks for damage. Read-only, so that a damaged file stays as it was found, with the log beside it. What else may be
 * wrong is told by the opening for writing.
 */
function assertUndamaged(filePath: string): void {
  if (!existsSync(filePath)) return;
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(filePath, { readOnly: true });
    const [problem] = Object.values(database.prepare('PRAGMA quick_check(1)').get() ?? {});
    if (problem !== 'ok') throw new DamagedDatabaseError();
  } catch (error) {
    if (isDamaged(error)) throw error;
  } finally {
    database?.close();
    // Readers share one, and the last leaves it; who has the file for itself needs none.
    rmSync(`${filePath}-shm`, { force: true });
  }
}

function openFile(filePath: string): DatabaseSync {
  assertUndamaged(filePath);
  const database = new DatabaseSync(filePath);
  try {
    // With the write-ahead log, NORMAL loses nothing when the process dies; when the power fails, at most the last
    // moments. FULL would hold up the event loop for a flush of the disk at each change.
    database.exec(`
      PRAGMA locking_mode = EXCLUSIVE;
      PRAGMA journal_mode = WAL;
      PRAGMA synchronous = NORMAL;
      PRAGMA journal_size_limit = ${MAX_WAL_BYTES};
    `);
    migrate(database);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

/** Brings the schema up to date. @throws LoaderError `task_store_unavailable` for one of a newer Loader */
export function migrate(database: DatabaseSync): void {
  const version = Number(database.prepare('PRAGMA user_version').get()?.['user_version']);
  if (version > MIGRATIONS.length) {
    throw new LoaderError(
      'task_store_unavailable',
      'The database of the tasks was made by a newer Loader; use that one, or move tasks.db out of STATE_DIR.',
    );
  }
  for (const [index, migration] of MIGRATIONS.entries()) {
    if (index >= version) setVersion(database, index + 1, migration);
  }
  // Nothing can be told of a disk without room before something is written.
  setVersion(database, MIGRATIONS.length);
}

function setVersion(database: DatabaseSync, version: number, migration = ''): void {
  inTransaction(database, () => {
    database.exec(`${migration}; PRAGMA user_version = ${version}`);
  });
}

/** All of `work`'s changes, or none. */
export function inTransaction<T>(database: DatabaseSync, work: () => T): T {
  database.exec('BEGIN IMMEDIATE');
  try {
    const result = work();
    database.exec('COMMIT');
    return result;
  } catch (error) {
    // SQLite has taken it back already after some errors, such as a full disk.
    if (database.isTransaction) database.exec('ROLLBACK');
    throw error;
  }
}

class DamagedDatabaseError extends Error {
  override readonly name = 'DamagedDatabaseError';
}

/** Result codes of SQLite (sqlite.org/rescode.html) that we can tell something about. */
const MEANINGS: Readonly<Record<number, string>> = {
  5: 'another Loader uses it: each needs a STATE_DIR of its own',
  8: 'it is read-only',
  10: 'the disk reports errors',
  11: 'it is damaged; it will be set aside at the next start',
  13: 'the disk is full',
  14: 'it can not be opened: check that the user of the Loader may write there',
  26: 'it is damaged; it will be set aside at the next start',
};
const DAMAGE_CODES = [11, 26];

/** The primary result code of an error of SQLite. */
function resultCode(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('errcode' in error) || typeof error.errcode !== 'number') return undefined;
  return error.errcode & 0xff;
}

function isDamaged(error: unknown): boolean {
  return error instanceof DamagedDatabaseError || DAMAGE_CODES.includes(resultCode(error) ?? 0);
}

/** Says what is wrong with the database, in words that tell what to do. */
export function toStoreError(error: unknown): LoaderError {
  if (hasErrorCode(error, 'task_store_unavailable')) return error;
  const reason = MEANINGS[resultCode(error) ?? 0] ?? systemErrorCode(error) ?? 'unknown reason';
  return new LoaderError('task_store_unavailable', `The database of the tasks in STATE_DIR can't be used: ${reason}.`, {
    cause: error,
  });
}

/** The file, and the log of changes beside it, if it holds any: a process that was killed leaves it. */
async function setAside(filePath: string, asidePath: string): Promise<void> {
  await rename(filePath, asidePath);
  try {
    const { size } = await stat(`${filePath}-wal`);
    if (size === 0) await rm(`${filePath}-wal`);
    else await rename(`${filePath}-wal`, `${asidePath}-wal`);
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
  }
}
