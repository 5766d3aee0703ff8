import { systemErrorCode } from '../errors.ts';
import type { KnownSecrets } from './known-secrets.ts';
import { isNoFileOfItsOwn, LogFile } from './log-file.ts';
import { LogOutput } from './log-output.ts';
import { createLogger, type LogFormat, type Logger, type LogLevel } from './logger.ts';
import { openStdout } from './open-stdout.ts';

export interface LogOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** LOG_FILE, which gets the same lines as stdout. */
  readonly filePath: string | undefined;
  readonly secrets: KnownSecrets;
}

type MakePretty = ((line: string) => string) | undefined;

/** Faults of a disk that pass, or that a person far away can't mend at once. They are no reason not to start. */
const DISK_FAULTS: readonly (string | undefined)[] = ['ENOSPC', 'EDQUOT', 'EROFS', 'EIO'];
/** How long an exit waits for lines that are not written yet. */
const FLUSH_MS = 500;

/** The log of the process: its logger, what the lines go to, and the end of the process that they must not hold up. */
export class Log {
  readonly logger: Logger;
  readonly #outputs: readonly LogOutput[];
  readonly #file: LogFile | undefined;

  private constructor({ level, secrets }: LogOptions, file: LogFile | undefined, makePretty: MakePretty) {
    this.#file = file;
    const targets = [openStdout(), ...(file === undefined ? [] : [file])];
    this.#outputs = targets.map((target) => new LogOutput(target, (reason) => this.#tellLoss(target.name, reason)));
    this.logger = createLogger({ level, outputs: this.#outputs, makePretty, secrets });
  }

  /** @throws Error that names LOG_FILE, when its name is wrong */
  static async open(options: LogOptions): Promise<Log> {
    const { filePath, format } = options;
    const makePretty = format === 'pretty' ? await loadPretty(filePath === undefined) : undefined;
    if (filePath === undefined || (await isNoFileOfItsOwn(filePath))) return new Log(options, undefined, makePretty);
    const file = new LogFile(filePath);
    try {
      await file.open();
    } catch (error) {
      // The first line tries again, and tells of it.
      if (!DISK_FAULTS.includes(systemErrorCode(error))) throw error;
    }
    return new Log(options, file, makePretty);
  }

  /** Lines that each output could not take since the start. */
  get lostLines(): ReadonlyMap<string, number> {
    return new Map(this.#outputs.map(({ name, lostLines }) => [name, lostLines]));
  }

  /** Opens LOG_FILE anew, after log rotation has renamed it. */
  async reopenFile(): Promise<void> {
    try {
      await this.#file?.reopen();
      this.logger.info('SIGHUP: LOG_FILE, if there is one, was opened anew');
    } catch (err) {
      this.logger.error({ err }, 'SIGHUP: LOG_FILE stays the file that it was');
    }
  }

  /** Ends the process with `code` when the lines are out, or soon. */
  async exit(code: number): Promise<void> {
    await Promise.all(this.#outputs.map((output) => output.flush(FLUSH_MS)));
    // An ordinary exit would wait for the thread that writes, perhaps for ever.
    if (this.#outputs.some((output) => output.isWriting)) process.kill(process.pid, 'SIGKILL');
    process.exit(code);
  }

  /** The line reaches the other output, if there is one and it works. */
  #tellLoss(output: string, reason: string): void {
    this.logger.error({ output, reason }, 'An output of the log takes no lines: they are counted until it does');
  }
}

/** Most devices never need its code. A file gets the same lines as a terminal, and must have no colours. */
async function loadPretty(mayHaveColours: boolean): Promise<MakePretty> {
  const { prettyFactory } = await import('pino-pretty');
  return prettyFactory({
    colorize: mayHaveColours && process.stdout.isTTY,
    singleLine: true,
    translateTime: 'SYS:HH:MM:ss.l',
  });
}
