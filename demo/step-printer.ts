import { styleText } from 'node:util';

/** What a step says of itself when it is done. */
export interface StepResult {
  /** Bytes that it moved, for the rate. */
  readonly bytes?: number;
  /** A few words, in the last column. */
  readonly note?: string;
  /** Lines of their own, below. */
  readonly details?: readonly string[];
}

/** Shows how far a step is, behind its title, on a terminal; elsewhere it does nothing. */
export type ShowProgress = (text: string) => void;

type Style = Parameters<typeof styleText>[0];

const TITLE_WIDTH = 34;
const TIME_WIDTH = 8;
const RATE_WIDTH = 10;
/** Puts the cursor back to the beginning of its line, and clears that. */
const REWIND_LINE = '\r\u001b[K';

/**
 * Prints steps as aligned lines: title, time, rate, note. On a terminal a step is seen while it runs; colors are for
 * terminals too, and only where NO_COLOR is unset.
 */
export class StepPrinter {
  readonly #output: NodeJS.WriteStream;
  readonly #hasColors: boolean;

  constructor(output: NodeJS.WriteStream, env: Readonly<Record<string, string | undefined>>) {
    this.#output = output;
    // https://no-color.org: any value but the empty one.
    this.#hasColors = output.isTTY && (env['NO_COLOR'] ?? '') === '';
  }

  /**
   * Runs `work` and prints how it went.
   *
   * @throws what `work` throws, after its line; the reason of `signal` without one, when it has aborted already
   */
  async step(title: string, work: (show: ShowProgress) => Promise<StepResult>, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.#showStep(title, '...');
    const start = performance.now();
    try {
      const result = await work((text) => this.#showStep(title.padEnd(TITLE_WIDTH), text));
      const seconds = (performance.now() - start) / 1000;
      const rate = result.bytes === undefined ? '' : `${(result.bytes / 1e6 / seconds).toFixed(0)} MB/s`;
      this.#endStep(this.#style('green', '✓'), title, seconds, rate, result.note ?? '');
      for (const detail of result.details ?? []) this.line(`    ${this.dim(detail)}`);
    } catch (error) {
      this.#endStep(this.#style('red', '✗'), title, (performance.now() - start) / 1000, '', '');
      throw error;
    }
  }

  line(text = ''): void {
    this.#output.write(`${text}\n`);
  }

  bold(text: string): string {
    return this.#style('bold', text);
  }

  dim(text: string): string {
    return this.#style('dim', text);
  }

  red(text: string): string {
    return this.#style('red', text);
  }

  #showStep(title: string, text: string): void {
    if (!this.#output.isTTY) return;
    // A line that wraps could not be taken back.
    const line = `  · ${title} ${text}`.slice(0, this.#output.columns - 1);
    this.#output.write(`${REWIND_LINE}${this.dim(line)}`);
  }

  #endStep(mark: string, title: string, seconds: number, rate: string, note: string): void {
    const time = `${seconds.toFixed(2)} s`.padStart(TIME_WIDTH);
    const columns = `  ${mark} ${title.padEnd(TITLE_WIDTH)}${time}${rate.padStart(RATE_WIDTH)}`;
    const line = note === '' ? columns.trimEnd() : `${columns}   ${this.dim(note)}`;
    this.#output.write(`${this.#output.isTTY ? REWIND_LINE : ''}${line}\n`);
  }

  #style(style: Style, text: string): string {
    return this.#hasColors ? styleText(style, text, { validateStream: false }) : text;
  }
}
