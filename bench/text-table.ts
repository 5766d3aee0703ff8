/** Rows of cells as lines of plain text. Each row is printed as it comes, before the width of the others is known. */
export class TextTable {
  readonly #print: (line: string) => void;
  readonly #widths: readonly number[];
  readonly #lines: string[] = [];

  constructor(print: (line: string) => void, columns: readonly (readonly [title: string, width: number])[]) {
    this.#print = print;
    this.#widths = columns.map(([, width]) => width);
    this.#lines.push(
      this.#format(columns.map(([title]) => title)),
      this.#widths.map((width) => '-'.repeat(width)).join('  '),
    );
  }

  /** Prints a row and keeps it for `printAll`. */
  add(cells: readonly string[]): void {
    const line = this.#format(cells);
    this.#lines.push(line);
    this.#print(line);
  }

  printAll(): void {
    for (const line of this.#lines) this.#print(line);
  }

  #format(cells: readonly string[]): string {
    return cells
      .map((cell, index) => cell.padEnd(this.#widths[index] ?? 0))
      .join('  ')
      .trimEnd();
  }
}
