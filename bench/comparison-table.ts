import { median } from './measure.ts';

/** What was measured here and there, in the same unit. Less is better. */
export interface Comparison {
  readonly what: string;
  readonly here: readonly number[];
  readonly there: readonly number[];
  readonly unit: 'ms' | 'MiB';
}

/** From this ratio of the medians on, a row is worse. */
const WORSE_FROM = 1.1;
const HEADER = ['what', 'median here', 'median there', 'ratio', ''] as const;
const WIDTHS = [40, 30, 30, 6, 10] as const;

/** Rows of medians of this checkout and another one. */
export class ComparisonTable {
  readonly #print: (line: string) => void;
  readonly #lines: string[] = [];
  #worse = 0;

  constructor(print: (line: string) => void) {
    this.#print = print;
    this.#lines.push(formatLine(HEADER), WIDTHS.map((width) => '-'.repeat(width)).join('  '));
  }

  /** Prints a row and keeps it for `printAll`. */
  add({ what, here, there, unit }: Comparison): void {
    const ratio = median(here) / median(there);
    if (ratio > WORSE_FROM) this.#worse++;
    const mark = ratio > WORSE_FROM ? 'WORSE' : ratio < 1 / WORSE_FROM ? 'better' : '';
    const line = formatLine([what, format(here, unit), format(there, unit), ratio.toFixed(2), mark]);
    this.#lines.push(line);
    this.#print(line);
  }

  printAll(): void {
    for (const line of this.#lines) this.#print(line);
    this.#print(`\n${this.#worse} rows are worse by more than 10 %. Less is better; in brackets smallest-largest.`);
  }
}

function format(values: readonly number[], unit: string): string {
  const [middle, least, most] = [median(values), Math.min(...values), Math.max(...values)].map((value) =>
    value.toFixed(1),
  );
  return `${middle ?? ''} ${unit} (${least ?? ''}-${most ?? ''})`;
}

function formatLine(cells: readonly string[]): string {
  return cells
    .map((cell, index) => cell.padEnd(WIDTHS[index] ?? 0))
    .join('  ')
    .trimEnd();
}
