import type { DatabaseSync } from 'node:sqlite';
import type { Logger } from '../log/logger.ts';
import { findProblems, type PageCheck } from './check-pages.ts';
import type { Row } from './row.ts';
import { readSchedule } from './schedule-store.ts';
import { DamagedDatabaseError } from './store-error.ts';
import { Statements } from './statements.ts';
import { MAX_LINE_NUMBER, readLogLine, readTask } from './task-row.ts';
import { TASK_LOG_LEVELS } from './task.ts';
import { inTransaction } from './transaction.ts';

/**
 * What `readLogLine` does not take, for SQLite. There may be a million lines, and to read each here takes four times as
 * long as to let SQLite look at all of them.
 */
const DAMAGED_LINE = `(
  typeof(line) = 'integer' AND line BETWEEN 0 AND ${MAX_LINE_NUMBER}
  AND typeof(time) = 'integer' AND time BETWEEN 0 AND 8640000000000000
  AND level IN (${TASK_LOG_LEVELS.map((level) => `'${level}'`).join(', ')}) AND typeof(text) = 'text'
) IS NOT TRUE`;
/** The tables whose rows hold texts, with the columns that name a row in the log, the key by which it is deleted, and which rows are worth a look. */
const TABLES = [
  { table: 'tasks', name: 'uid', key: ['seq'], read: readTask, suspicion: 'TRUE' },
  { table: 'task_logs', name: 'task', key: ['task', 'line'], read: readLogLine, suspicion: DAMAGED_LINE },
  { table: 'schedules', name: 'id', key: ['seq'], read: readSchedule, suspicion: 'TRUE' },
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

function findDamaged(statements: Statements, { table, key, read, suspicion }: Table): Row[] {
  const damaged: Row[] = [];
  // The order of the rows' own tree: an index may be damaged.
  const query = `SELECT * FROM ${table} NOT INDEXED WHERE ${suspicion} ORDER BY ${key.join(', ')}`;
  const rows = statements.prepare(query).iterate();
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
