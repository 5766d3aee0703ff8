import { randomBytes, randomUUID } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import path from 'node:path';
import { LoaderClient } from '../../lab/loader-client.ts';
import { LoaderProcess } from '../../lab/loader-process.ts';
import { readMemory, readOpenFiles } from '../../lab/proc.ts';
import { SERVICES_FOLDER } from '../../lab/services/services.ts';
import { LOG_FOLDER, noteSecrets, RUN_FOLDER } from '../../lab/test-environment.ts';

export interface TestLoaderOptions {
  readonly env: Readonly<Record<string, string>>;
  /** User ID to run as, for tests about permissions. */
  readonly uid?: number;
}

/** A Loader process and its client, with a log of everything. */
export class TestLoader extends LoaderClient {
  readonly port: number;
  readonly pid: number;
  readonly #process: LoaderProcess;

  private constructor(loader: LoaderProcess, apiKeys: string | undefined) {
    super({ url: loader.url, apiKey: apiKeys?.split(',')[0], onAnswer: noteAnswer });
    this.#process = loader;
    this.port = loader.port;
    this.pid = loader.pid;
  }

  static async start(options: TestLoaderOptions): Promise<TestLoader> {
    return new TestLoader(await LoaderProcess.start(processOptions(options)), options.env['API_KEY']);
  }

  /** Starts one that is killed after so many ms, whether it listens by then or not. */
  static async startAndKill(options: TestLoaderOptions, afterMs: number): Promise<void> {
    await LoaderProcess.startAndKill(processOptions(options), afterMs);
  }

  /** Its log until now. */
  log(): string {
    return this.#process.log();
  }

  /** Log lines until now that have this text. */
  logLines(text: string): string[] {
    return this.log()
      .split('\n')
      .filter((line) => line.includes(text));
  }

  /** What its file descriptors point to, under `folder`, without what is always open: the tasks' database and the locks. */
  openFilesUnder(folder: string): string[] {
    return readOpenFiles(this.pid).filter(
      (target) =>
        target.startsWith(folder) && !/\/(tasks\.db(-wal|-shm)?|(state|cache)\.lock)( \(deleted\))?$/.test(target),
    );
  }

  openSockets(): number {
    return readOpenFiles(this.pid).filter((target) => target.startsWith('socket:')).length;
  }

  /** The most resident memory that it ever had, in bytes. */
  peakMemory(): number {
    return readMemory(this.pid).peak;
  }

  /** Sends a signal and waits for the exit code; null when a signal ended it. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    return await this.#process.stop(signal);
  }

  /** Sends a signal whose effect is awaited elsewhere. */
  signal(signal: NodeJS.Signals): void {
    this.#process.signal(signal);
  }

  /** Its exit code when it ends. */
  async exited(): Promise<number | null> {
    return await this.#process.exited();
  }
}

function processOptions({ env, ...options }: TestLoaderOptions) {
  return {
    ...options,
    logPath: path.join(LOG_FOLDER, `${randomUUID()}.log`),
    env: {
      LOG_LEVEL: 'trace',
      HARDWARE_ID: 'test-hardware',
      STATE_DIR: path.join(RUN_FOLDER, 'state', randomUUID()),
      MODEL_CACHE_DIR: path.join(RUN_FOLDER, 'models', randomUUID()),
      // Of Node: the next start takes half the time. A Loader that is killed does not write it.
      NODE_COMPILE_CACHE: path.join(SERVICES_FOLDER, 'compile-cache'),
      ...env,
    },
  };
}

/** Keeps an answer beside the logs for the test that looks for secrets. */
function noteAnswer(text: string): void {
  appendFileSync(path.join(LOG_FOLDER, 'answers.log'), `${text}\n`);
}

/** A new API key, which must not be in logs and answers. */
export function newApiKey(): string {
  const key = `key-${randomBytes(16).toString('hex')}`;
  noteSecrets(key);
  return key;
}
