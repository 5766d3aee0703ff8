import type { DatabaseSync, StatementSync } from 'node:sqlite';

/** Prepares each statement of a database once. They return whole numbers as bigint. */
export class Statements {
  readonly #database: DatabaseSync;
  /** By their SQL. */
  readonly #prepared = new Map<string, StatementSync>();

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  prepare(sql: string): StatementSync {
    const known = this.#prepared.get(sql);
    if (known !== undefined) return known;
    const statement = this.#database.prepare(sql);
    // A damaged row may have a number that is too large for JavaScript: it must not hide the other rows.
    statement.setReadBigInts(true);
    this.#prepared.set(sql, statement);
    return statement;
  }

  /** Returns the number in the only column of the first row; 0 where there is no row, or NULL. */
  number(sql: string, ...parameters: readonly string[]): number {
    const [value] = Object.values(this.prepare(sql).get(...parameters) ?? {});
    return Number(value ?? 0);
  }
}
