import { chmodSync, existsSync } from 'node:fs';
import { readdir, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { systemErrorCode } from '../errors.ts';
import { makeFolder } from '../files/folders.ts';
import type { Logger } from '../log/logger.ts';
import { checkPages } from './check-pages.ts';
import { migrate } from './migrations.ts';
import { removeDamagedRows } from './remove-damaged-rows.ts';
import { isDamaged, toStoreError } from './store-error.ts';

const FILE_NAME = 'tasks.db';
/** The parameters and results of tasks are for the Loader's user alone. */
const FILE_MODE = 0o600;
/** SQLite cuts the write-ahead log back to this many bytes. */
const MAX_WAL_BYTES = 4 * 1024 * 1024;
/** So many damaged databases are kept: each may be large, and a disk that fails damages one after the other. */
const MAX_ASIDE = 3;

/**
 * Opens the database of the tasks in `stateDir`, and brings its schema up to date. No other process can use it until it
 * is closed. Rows that are damaged are removed. Where the file itself is, it is renamed, and a new database takes its place.
 *
 * @throws LoaderError `task_store_unavailable`
 */
export async function openTaskDatabase(stateDir: string, logger: Logger): Promise<DatabaseSync> {
  const filePath = path.join(stateDir, FILE_NAME);
  try {
    await makeFolder(stateDir);
    try {
      return openFile(filePath, logger);
    } catch (error) {
      if (!isDamaged(error)) throw error;
      const asidePath = `${filePath}.damaged-${new Date().toISOString().replaceAll(':', '-')}`;
      await setAside(filePath, asidePath);
      await keepNewest(filePath);
      logger.error(
        { err: error, file: path.basename(asidePath) },
        'The database of the tasks is damaged: it was set aside in STATE_DIR, and history and schedules begin anew',
      );
      return openFile(filePath, logger);
    }
  } catch (error) {
    throw toStoreError(error);
  }
}

function openFile(filePath: string, logger: Logger): DatabaseSync {
  const check = existsSync(filePath) ? checkPages(filePath) : { hasDamagedRows: false };
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
    removeDamagedRows(database, check, logger);
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

/** Removes the oldest files that were set aside. */
async function keepNewest(filePath: string): Promise<void> {
  const folder = path.dirname(filePath);
  const prefix = `${path.basename(filePath)}.damaged-`;
  const asides = (await readdir(folder)).filter((name) => name.startsWith(prefix) && !name.endsWith('-wal')).sort();
  for (const name of asides.slice(0, -MAX_ASIDE)) {
    for (const file of [name, `${name}-wal`]) await rm(path.join(folder, file), { force: true });
  }
}
