import { hasErrorCode, LoaderError, sqliteErrorCode, systemErrorCode } from '../errors.ts';

/** Meanings of SQLite's primary result codes (sqlite.org/rescode.html), and what an operator can do. */
const MEANINGS: Readonly<Record<number, string>> = {
  5: 'another Loader uses it: give each Loader a STATE_DIR of its own',
  8: 'it is read-only',
  10: 'the disk reports errors',
  11: 'it is damaged; it will be set aside in a moment',
  13: 'the disk is full',
  14: 'it can not be opened: check that the user of the Loader may write there',
  26: 'it is damaged; it will be set aside in a moment',
};
const DAMAGE_CODES = [11, 26];
/** SQLite's code for whatever has no code of its own. */
const SQL_ERROR = 1;
const DAMAGE_MESSAGES = /no such (?:table|column|index)|unsupported file format/;

/** The database of the tasks is damaged, as a check of its pages, tables and rows found. */
export class DamagedDatabaseError extends Error {
  override readonly name = 'DamagedDatabaseError';
}

/** Tells whether an error says that the file of the database is damaged. */
export function isDamaged(error: unknown): boolean {
  if (error instanceof DamagedDatabaseError) return true;
  const code = sqliteErrorCode(error) ?? 0;
  return DAMAGE_CODES.includes(code) || (code === SQL_ERROR && DAMAGE_MESSAGES.test(String(error)));
}

/** Converts any error of the database to a LoaderError `task_store_unavailable`, whose message says what to do. */
export function toStoreError(error: unknown): LoaderError {
  if (hasErrorCode(error, 'task_store_unavailable')) return error;
  const reason = MEANINGS[sqliteErrorCode(error) ?? 0] ?? systemErrorCode(error) ?? 'unknown reason';
  return new LoaderError('task_store_unavailable', `The database of the tasks in STATE_DIR can't be used: ${reason}.`, {
    cause: error,
  });
}
