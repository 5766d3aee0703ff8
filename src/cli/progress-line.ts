/** The part of an output stream that a ProgressLine uses. */
export interface ProgressOutput {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

const REDRAW_EVERY_MS = 200;
const PRINT_EVERY_MS = 5_000;
/** Moves the cursor to the beginning of its line and clears the line. */
const REWIND_LINE = '\r\u001b[K';

/** Shows how far some work is. On a terminal it redraws one line; elsewhere it prints a line now and then. */
export class ProgressLine {
  readonly #output: ProgressOutput;
  readonly #title: string;
  readonly #total: number | undefined;
  readonly #startedAt = performance.now();
  readonly #timer: NodeJS.Timeout;
  #bytes = 0;

  /** `total` is in bytes, undefined where it is not known. Call `end`, which stops the timer. */
  constructor(output: ProgressOutput, title: string, total?: number) {
    this.#output = output;
    this.#title = title;
    this.#total = total;
    this.#timer = setInterval(() => this.#draw(), this.#isTty ? REDRAW_EVERY_MS : PRINT_EVERY_MS);
    if (this.#isTty) this.#draw();
  }

  /** Counts bytes that were done. */
  add(length: number): void {
    this.#bytes += length;
  }

  /** Clears a terminal's line, since the output that follows tells the result. */
  end(): void {
    clearInterval(this.#timer);
    if (this.#isTty) this.#output.write(REWIND_LINE);
  }

  get #isTty(): boolean {
    return this.#output.isTTY === true;
  }

  #draw(): void {
    this.#output.write(this.#isTty ? `${REWIND_LINE}${this.#text()}` : `${this.#text()}\n`);
  }

  #text(): string {
    const seconds = (performance.now() - this.#startedAt) / 1000;
    const time = `${Math.floor(seconds)} s`;
    if (this.#bytes === 0) return `${this.#title}: nothing yet, ${time}`;
    const of = this.#total === undefined ? '' : ` of ${formatBytes(this.#total)}`;
    return `${this.#title}: ${formatBytes(this.#bytes)}${of}, ${formatBytes(this.#bytes / seconds)}/s, ${time}`;
  }
}

/** Such as `1.25 GB`. */
export function formatBytes(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(2)} GB`;
  if (bytes >= 1e6) return `${(bytes / 1e6).toFixed(1)} MB`;
  return `${(bytes / 1e3).toFixed(1)} kB`;
}
