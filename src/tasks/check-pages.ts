import { closeSync, openSync, readSync, rmSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { isDamaged, DamagedDatabaseError } from './store-error.ts';

/**
 * What `PRAGMA integrity_check` says of a value in a row, or of an index that does not have what the row has. Rows can
 * be removed, and indexes made anew; all else that it says is about the pages.
 */
const ROW_PROBLEM =
  /^(?:NULL|non-\w+|\w+) value in |^CHECK constraint failed in |missing from index |values differ from index |^wrong # of entries in index |^non-unique entry in index /;
/** Versions of the file format for writing and reading. SQLite takes a higher one for a file that can only be read. */
const FORMAT_VERSIONS_AT = 18;
const MAX_FORMAT_VERSION = 2;

export interface PageCheck {
  /** Whether SQLite finds rows or indexes damaged, while the pages are sound. */
  readonly hasDamagedRows: boolean;
}

/**
 * Looks for damage without writing, so that a damaged file and the log beside it stay as they were. It passes over all
 * other errors: the opening for writing reports them.
 *
 * @throws SQLite's error of a file whose pages are damaged; DamagedDatabaseError
 */
export function checkPages(filePath: string): PageCheck {
  let database: DatabaseSync | undefined;
  try {
    if (!hasKnownFormat(filePath)) throw new DamagedDatabaseError('its header is damaged');
    database = new DatabaseSync(filePath, { readOnly: true });
    const problems = findProblems(database);
    const ofPages = problems.find((text) => !ROW_PROBLEM.test(text));
    if (ofPages !== undefined) throw new DamagedDatabaseError(ofPages);
    return { hasDamagedRows: problems.length > 0 };
  } catch (error) {
    if (isDamaged(error)) throw error;
    return { hasDamagedRows: false };
  } finally {
    database?.close();
    // A reader leaves this file behind. A process that has the database for itself does not use it.
    rmSync(`${filePath}-shm`, { force: true });
  }
}

/** What is wrong in the pages, rows and indexes of a database. @throws SQLite's error of a damaged file */
export function findProblems(database: DatabaseSync): string[] {
  return database
    .prepare('PRAGMA integrity_check(1000)')
    .all()
    .flatMap((row) => Object.values(row).map(String))
    .filter((text) => text !== 'ok');
}

function hasKnownFormat(filePath: string): boolean {
  const versions = Buffer.alloc(2);
  try {
    const descriptor = openSync(filePath, 'r');
    try {
      readSync(descriptor, versions, { position: FORMAT_VERSIONS_AT });
    } finally {
      closeSync(descriptor);
    }
  } catch {
    return true; // The opening reports why.
  }
  return versions.every((version) => version <= MAX_FORMAT_VERSION);
}
