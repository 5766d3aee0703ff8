export interface Row {
  readonly what: string;
  readonly loader: string;
  readonly peer?: string;
  /** Loader beside peer, as `target` means it. */
  readonly ratio?: string;
  readonly target?: string;
  readonly isMet?: boolean;
}

const HEADER = ['what', 'Loader', 'peer', 'ratio', 'target', ''] as const;
/** Rows are printed as they come, before it is known how wide the others are. */
const WIDTHS = [48, 40, 40, 9, 10, 6] as const;

/** The bench's results, as lines of plain text. */
export class Table {
  readonly #print: (line: string) => void;
  readonly #lines: string[] = [];

  constructor(print: (line: string) => void) {
    this.#print = print;
    this.#lines.push(formatLine(HEADER), WIDTHS.map((width) => '-'.repeat(width)).join('  '));
  }

  /** Prints a row and keeps it for `printAll`. */
  add(row: Row): void {
    const verdict = row.isMet === undefined ? '' : row.isMet ? 'ok' : 'MISSED';
    const line = formatLine([row.what, row.loader, row.peer ?? '', row.ratio ?? '', row.target ?? '', verdict]);
    this.#lines.push(line);
    this.#print(line);
  }

  printAll(): void {
    for (const line of this.#lines) this.#print(line);
  }
}

function formatLine(cells: readonly string[]): string {
  return cells
    .map((cell, index) => cell.padEnd(WIDTHS[index] ?? 0))
    .join('  ')
    .trimEnd();
}
