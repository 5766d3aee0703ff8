/** Counts the lines that an output could not take, and tells of them in a line of the log. */
export class LostLines {
  #count = 0;
  #since = '';
  /** How many of them the last line told of. */
  #told = 0;
  #total = 0;

  get count(): number {
    return this.#count;
  }

  /** All since the start, those that were told of included. */
  get total(): number {
    return this.#total;
  }

  add(count: number): void {
    this.#total += count;
    if (this.#count === 0) this.#since = new Date().toISOString();
    this.#count += count;
  }

  /** The line of the log that tells of them. */
  tell(): string {
    this.#told = this.#count;
    const time = new Date().toISOString();
    const msg = 'Lines of the log are missing here: they could not be written.';
    return `${JSON.stringify({ level: 'warn', time, lostLines: this.#count, since: this.#since, msg })}\n`;
  }

  /** Forgets those that the last line told of: it was written. */
  forgetTold(): void {
    this.#count -= this.#told;
    this.#told = 0;
  }
}
