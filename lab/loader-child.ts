import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

const MAIN = path.resolve(import.meta.dirname, '../src/main.ts');
const KEPT_LOG_LINES = 12;
/** How long the Loader may take to stop before it is killed, in ms. */
const STOP_TIMEOUT_MS = 5_000;

/** A Loader as a process of its own, started from the sources. */
export class LoaderChild {
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  readonly #logLines: string[] = [];
  /** Gives its exit code, or the signal that ended it. */
  readonly #exited: Promise<number | string>;
  readonly #listening = Promise.withResolvers<string>();

  constructor(env: Readonly<Record<string, string | undefined>>) {
    this.#child = spawn(process.execPath, [MAIN], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
      // A process group of its own: Ctrl-C in the terminal is for the parent, which stops the Loader in its own time.
      detached: true,
    });
    this.#exited = once(this.#child, 'exit').then(([code, signal]) => (code ?? signal) as number | string);
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => this.#onLogLine(line));
    }
    void this.#exited.then(
      (result) => {
        this.#listening.reject(new Error(`the Loader ended before it listened (${result})`));
      },
      (error: unknown) => this.#listening.reject(error),
    );
    this.#listening.promise.catch(() => undefined); // Whoever waits for it gets the failure; maybe nobody does.
  }

  /** Its base URL, as soon as it listens. @throws Error when it ends before, or the reason of `signal` */
  async listening(signal: AbortSignal): Promise<string> {
    return await Promise.race([this.#listening.promise, rejectedBy(signal)]);
  }

  /** Its exit code, or the signal that ended it; undefined when `signal` aborts before. */
  async exitedBefore(signal: AbortSignal): Promise<number | string | undefined> {
    try {
      return await Promise.race([this.#exited, rejectedBy(signal)]);
    } catch (error) {
      if (signal.aborted) return undefined;
      throw error;
    }
  }

  /** The last lines of its log, as JSON or, from a failed start, as text. */
  get lastLogLines(): readonly string[] {
    return this.#logLines;
  }

  get isRunning(): boolean {
    return this.#child.pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Lets it finish what is under way; kills it when that takes too long. */
  async stop(): Promise<void> {
    if (!this.isRunning) return;
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.kill(), STOP_TIMEOUT_MS);
    await this.#exited;
    clearTimeout(timer);
  }

  /** Ends it at once. */
  kill(): void {
    if (this.isRunning) this.#child.kill('SIGKILL');
  }

  #onLogLine(line: string): void {
    this.#logLines.push(line);
    if (this.#logLines.length > KEPT_LOG_LINES) this.#logLines.shift();
    const url = /Server listening at (http:\/\/[^"]+)/.exec(line)?.[1];
    if (url !== undefined) this.#listening.resolve(url);
  }
}

async function rejectedBy(signal: AbortSignal): Promise<never> {
  if (!signal.aborted) await once(signal, 'abort');
  throw signal.reason;
}
