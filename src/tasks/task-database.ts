import { chmodSync, existsSync, rmSync } from 'node:fs';
import { rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { systemErrorCode } from '../errors.ts';
import { makeFolder } from '../files/folders.ts';
import type { Logger } from '../log/logger.ts';
import { migrate } from './migrations.ts';
import { DamagedDatabaseError, isDamaged, toStoreError } from './store-error.ts';

const FILE_NAME = 'tasks.db';
/** The parameters and results of tasks are for the Loader's user alone. */
const FILE_MODE = 0o600;
/** SQLite cuts the write-ahead log back to this many bytes. */
const MAX_WAL_BYTES = 4 * 1024 * 1024;

/**
 * Opens the database of the tasks in `stateDir`, and brings its schema up to date. No other process can use it until it
 * is closed. Where the file is damaged, it is renamed, and a new database takes its place.
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
 * Looks for damage without writing, so that a damaged file and the log beside it stay as they were. It passes over all
 * other errors: the opening for writing reports them.
 *
 * @throws SQLite's error of a damaged file; DamagedDatabaseError
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
    // A reader leaves this file behind. A process that has the database for itself does not use it.
    rmSync(`${filePath}-shm`, { force: true });
  }
}

function openFile(filePath: string): DatabaseSync {
  assertUndamaged(filePath);
  const database = new DatabaseSync(filePath);
  try {
    // SQLite gives the mode of this file to the files beside it.
    chmodSync(filePath, FILE_MODE);
    // With the write-ahead log, NORMAL loses no change when the process dies, and at most the last moments when the power
    // fails. FULL would block the event loop until the disk has flushed each change.
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

/** Renames the file, and the write-ahead log beside it, which a killed process leaves, unless the log is empty. */
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
