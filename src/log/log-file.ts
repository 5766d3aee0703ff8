import { appendFileSync, closeSync, mkdirSync, openSync } from 'node:fs';
import path from 'node:path';

/** Lines of the log may name resources and users' roles: other users of the machine may not read them. */
const MODE = 0o600;

/** LOG_FILE: lines are appended to it at once. A failure never ends the process, since stdout has the lines too. */
export class LogFile {
  readonly #path: string;
  #descriptor: number;
  #hasFailed = false;

  /** Opens the file, and makes it and its folders if they are missing. @throws Error of the system */
  constructor(filePath: string) {
    this.#path = filePath;
    mkdirSync(path.dirname(filePath), { recursive: true });
    this.#descriptor = openSync(filePath, 'a', MODE);
  }

  write(line: string): void {
    try {
      appendFileSync(this.#descriptor, line);
      this.#hasFailed = false;
    } catch (error) {
      // Once, not for every line.
      if (!this.#hasFailed) tell("can't be written", error);
      this.#hasFailed = true;
    }
  }

  /** Opens the file under its name anew: log rotation has renamed the one that is open. */
  reopen(): void {
    try {
      const descriptor = openSync(this.#path, 'a', MODE);
      closeSync(this.#descriptor);
      this.#descriptor = descriptor;
    } catch (error) {
      tell("can't be opened anew, and the lines go on into the old file", error);
    }
  }
}

function tell(what: string, error: unknown): void {
  process.stderr.write(`LOG_FILE ${what}: ${error instanceof Error ? error.message : String(error)}\n`);
}
