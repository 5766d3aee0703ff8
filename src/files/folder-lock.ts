import { constants } from 'node:fs';
import { access, lstat, open } from 'node:fs/promises';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { sqliteErrorCode, systemErrorCode } from '../errors.ts';

const MODE = 0o600;
/** Of SQLite (sqlite.org/rescode.html). */
const BUSY = 5;
const DAMAGE_CODES: readonly (number | undefined)[] = [11, 26];

/** Another process holds the lock. */
export class FolderBusyError extends Error {
  override readonly name = 'FolderBusyError';
}

/**
 * A lock on a folder: an empty file in it, locked as a database of SQLite is. The kernel gives it up when the process ends,
 * however that comes, and knows it across containers, where two processes may have the same ID. Node itself can't lock a
 * file.
 *
 * The lock is that of the file: whoever removes the folder or the file removes the lock from the next process's eyes.
 */
export class FolderLock implements Disposable {
  readonly #database: DatabaseSync;

  private constructor(database: DatabaseSync) {
    this.#database = database;
  }

  /**
   * Takes the lock of a folder that is there, by the file `name`, which nothing else in this process may open: any close of
   * it would give the lock up. It must be kept until the disposal: the garbage collector would give it up too.
   *
   * @throws FolderBusyError when another holder has it; SQLite's error, or the system's, where no file can be locked there
   */
  static async take(folder: string, name: string): Promise<FolderLock> {
    const filePath = path.join(folder, name);
    await makeFile(filePath);
    try {
      return new FolderLock(lockFile(filePath));
    } catch (error) {
      if (!DAMAGE_CODES.includes(sqliteErrorCode(error))) throw error;
      // Some other bytes stand in it, which SQLite sees only when nobody holds the lock.
      await using file = await open(filePath, constants.O_WRONLY | constants.O_NOFOLLOW);
      await file.truncate();
    }
    return new FolderLock(lockFile(filePath));
  }

  [Symbol.dispose](): void {
    if (this.#database.isOpen) this.#database.close();
  }
}

function lockFile(filePath: string): DatabaseSync {
  const database = new DatabaseSync(filePath);
  try {
    // Nothing is written: a journal in memory, and a transaction that never ends.
    database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    return database;
  } catch (error) {
    database.close();
    if (sqliteErrorCode(error) === BUSY) throw new FolderBusyError('another process uses it', { cause: error });
    throw error;
  }
}

/** Before SQLite, which does not tell why it can't open a file, and would follow a link. @throws the system's error */
async function makeFile(filePath: string): Promise<void> {
  try {
    await using _file = await open(filePath, 'wx', MODE);
  } catch (error) {
    if (systemErrorCode(error) !== 'EEXIST') throw error;
    if (!(await lstat(filePath)).isFile()) throw new Error('no regular file stands where the lock would be');
    await access(filePath, constants.R_OK | constants.W_OK);
  }
}
