import { readFile } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import { systemErrorCode } from '../errors.ts';

export interface ChangingFileOptions<T> {
  /** Undefined for a value that never changes. */
  readonly path: string | undefined;
  /** The value that was read at the start. */
  readonly initial: T;
  /** Makes the value of a text; undefined when the text makes no sense. */
  readonly parse: (text: string) => T | undefined;
  /** Gets each new value before it is used. */
  readonly onChange: (value: T) => void;
  /** Gets why the file gives no value, in words that follow its name; once for each failure. */
  readonly onFailure: (reason: string) => void;
}

/** How old a look at the file may be, in ms. */
const LOOK_MS = 2_000;

/**
 * The value in a file that may be replaced while the Loader runs, such as a key that is rotated. A file that can't be read,
 * or makes no sense, leaves the last value as it is.
 *
 * It looks at the file when it is asked, and not by `fs.watch`, which misses what changes behind a symbolic link or a bind
 * mount.
 */
export class ChangingFile<T> {
  readonly #options: ChangingFileOptions<T>;
  #value: T;
  #text: string | undefined;
  #lookedAtMs = -Infinity;
  #failure: string | undefined;

  constructor(options: ChangingFileOptions<T>) {
    this.#options = options;
    this.#value = options.initial;
  }

  /** The value at the last look. */
  get latest(): T {
    return this.#value;
  }

  /** The value of at most two seconds ago. It never fails. */
  async value(): Promise<T> {
    const { path } = this.#options;
    if (path === undefined || performance.now() - this.#lookedAtMs < LOOK_MS) return this.#value;
    this.#lookedAtMs = performance.now();
    try {
      this.#take(await readFile(path, 'utf8'));
    } catch (error) {
      this.#keep(`can't be read (${systemErrorCode(error) ?? 'unknown reason'})`);
    }
    return this.#value;
  }

  #take(text: string): void {
    if (text === this.#text) return;
    const { parse, onChange } = this.#options;
    const value = parse(text);
    if (value === undefined) {
      this.#keep('makes no sense');
      return;
    }
    const isInitial = this.#text === undefined && isDeepStrictEqual(value, this.#value);
    this.#text = text;
    this.#failure = undefined;
    if (isInitial) return;
    onChange(value);
    this.#value = value;
  }

  #keep(failure: string): void {
    if (failure === this.#failure) return;
    this.#failure = failure;
    this.#options.onFailure(failure);
  }
}
