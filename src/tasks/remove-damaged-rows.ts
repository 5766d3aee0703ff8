import type { DatabaseSync } from 'node:sqlite';
import type { Logger } from '../log/logger.ts';
import { findProblems, type PageCheck } from './check-pages.ts';
import type { Row } from './row.ts';
import { readSchedule } from './schedule-store.ts';
import { DamagedDatabaseError } from './store-error.ts';
import { Statements } from './statements.ts';
import { readLogLine, readTask } from './task-row.ts';
import { inTransaction } from './transaction.ts';

/** The tables whose rows hold texts, with the columns that name a row in the log, and the key by which it is deleted. */
const TABLES = [
  { table: 'tasks', name: 'uid', key: ['seq'], read: readTask },
  { table: 'task_logs', name: 'task', key: ['task', 'line'], read: readLogLine },
  { table: 'schedules', name: 'id', key: ['seq'], read: readSchedule },
] as const;
/** The greatest number of rows that one line of the log names. */
const MAX_NAMED = 20;
/** No device has begun so many tasks. A damaged number near SQLite's greatest one would leave no room for a next task. */
const MAX_SEQ = 2 ** 40;

/**
 * Removes the rows that can't be read, and what belongs to them, and tells which. `hasDamagedRows` is what SQLite itself found. Then it makes the indexes anew, since
 * they may still have what a damaged row had.
 *
 * @throws DamagedDatabaseError where that does not mend the database; SQLite's error
 */
export function removeDamagedRows(database: DatabaseSync, { hasDamagedRows }: PageCheck, logger: Logger): void {
  const statements = new Statements(database);
  const damaged = TABLES.map((one) => ({ ...one, rows: findDamaged(statements, one) }));
  const isSeqSound = statements.number('SELECT max(seq) FROM sqlite_sequence') <= MAX_SEQ;
  if (damaged.every(({ rows }) => rows.length === 0) && isSeqSound && !hasDamagedRows) return;
  deleteRows(database, damaged);
  const [problem] = findProblems(database);
  if (problem !== undefined) throw new DamagedDatabaseError(problem);
  for (const { table, name, rows } of damaged) {
    if (rows.length === 0) continue;
    logger.error(
      { table, rows: rows.length, [name]: rows.slice(0, MAX_NAMED).map((row) => String(row[name]).slice(0, 64)) },
      "Damaged rows of the tasks' database were removed",
    );
  }
}

type Table = (typeof TABLES)[number];

function findDamaged(statements: Statements, { table, key, read }: Table): Row[] {
  const damaged: Row[] = [];
  // The order of the rows' own tree: an index may be damaged.
  const rows = statements.prepare(`SELECT * FROM ${table} NOT INDEXED ORDER BY ${key.join(', ')}`).iterate();
  for (const row of rows) if (read(row) === undefined) damaged.push(row);
  return damaged;
}

function deleteRows(database: DatabaseSync, damaged: readonly (Table & { readonly rows: readonly Row[] })[]): void {
  // Otherwise SQLite refuses to delete a row that an index does not have, and to set the greatest number of a task.
  database.enableDefensive(false);
  database.exec('PRAGMA writable_schema = ON');
  try {
    inTransaction(database, () => {
      for (const { table, key, rows } of damaged) {
        const statement = database.prepare(
          `DELETE FROM ${table} WHERE ${key.map((column) => `${column} = ?`).join(' AND ')}`,
        );
        for (const row of rows) statement.run(...key.map((column) => row[column] ?? null));
      }
      for (const table of ['task_logs', 'pending_retries']) {
        database.exec(`DELETE FROM ${table} WHERE task NOT IN (SELECT seq FROM tasks)`);
      }
      database.exec('REINDEX');
      database.exec(`UPDATE sqlite_sequence SET seq = (SELECT max(seq) FROM tasks) WHERE seq > ${MAX_SEQ}`);
    });
  } finally {
    database.exec('PRAGMA writable_schema = OFF');
    database.enableDefensive(true);
  }
}
