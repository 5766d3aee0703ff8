import type { Logger } from '../log/logger.ts';
import type { Row } from './row.ts';

/** Tells of the damaged rows that are left out, once of each. The next start removes them. */
export class DamagedRows {
  readonly #logger: Logger;
  readonly #told = new Set<string>();

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** Returns what `read` makes of a row, and tells where that is nothing. `name` is the column that names the row. */
  read<T>(row: Row, read: (row: Row) => T | undefined, name: string): T | undefined {
    const value = read(row);
    if (value === undefined) this.#tell(String(row[name]).slice(0, 64), name);
    return value;
  }

  #tell(text: string, name: string): void {
    const key = `${name} ${text}`;
    if (this.#told.has(key)) return;
    this.#told.add(key);
    this.#logger.error(
      { [name]: text },
      "A row of the tasks' database is damaged: it is left out, and the next start removes it",
    );
  }
}
