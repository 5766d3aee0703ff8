import { TextTable } from './text-table.ts';

export interface Row {
  readonly what: string;
  readonly loader: string;
  readonly peer?: string;
  /** Loader beside peer, as `target` means it. */
  readonly ratio?: string;
  readonly target?: string;
  readonly isMet?: boolean;
}

const COLUMNS = [
  ['what', 48],
  ['Loader', 40],
  ['peer', 40],
  ['ratio', 9],
  ['target', 10],
  ['', 6],
] as const;

/** The bench's results. */
export class Table {
  readonly #table: TextTable;

  constructor(print: (line: string) => void) {
    this.#table = new TextTable(print, COLUMNS);
  }

  /** Prints a row and keeps it for `printAll`. */
  add(row: Row): void {
    const verdict = row.isMet === undefined ? '' : row.isMet ? 'ok' : 'MISSED';
    this.#table.add([row.what, row.loader, row.peer ?? '', row.ratio ?? '', row.target ?? '', verdict]);
  }

  printAll(): void {
    this.#table.printAll();
  }
}
