import { median } from './measure.ts';
import { TextTable } from './text-table.ts';

/** Measurements of here and there, in the same unit. Less is better. */
export interface Comparison {
  readonly what: string;
  readonly here: readonly number[];
  readonly there: readonly number[];
  readonly unit: 'ms' | 'MiB';
}

/** From this ratio of the medians on, a row is worse. */
const WORSE_FROM = 1.1;
const COLUMNS = [
  ['what', 40],
  ['median here', 30],
  ['median there', 30],
  ['ratio', 6],
  ['', 10],
] as const;

/** Rows of medians of this checkout and another one. */
export class ComparisonTable {
  readonly #print: (line: string) => void;
  readonly #table: TextTable;
  #worse = 0;

  constructor(print: (line: string) => void) {
    this.#print = print;
    this.#table = new TextTable(print, COLUMNS);
  }

  /** Prints a row and keeps it for `printAll`. */
  add({ what, here, there, unit }: Comparison): void {
    const ratio = median(here) / median(there);
    if (ratio > WORSE_FROM) this.#worse++;
    const mark = ratio > WORSE_FROM ? 'WORSE' : ratio < 1 / WORSE_FROM ? 'better' : '';
    this.#table.add([what, format(here, unit), format(there, unit), ratio.toFixed(2), mark]);
  }

  printAll(): void {
    this.#table.printAll();
    this.#print(`\n${this.#worse} rows are worse by more than 10 %. Less is better; in brackets smallest-largest.`);
  }
}

function format(values: readonly number[], unit: string): string {
  const [middle, least, most] = [median(values), Math.min(...values), Math.max(...values)].map((value) =>
    value.toFixed(1),
  );
  return `${middle ?? ''} ${unit} (${least ?? ''}-${most ?? ''})`;
}
