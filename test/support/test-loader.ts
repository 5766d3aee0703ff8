import { randomUUID } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import path from 'node:path';
import { LoaderProcess } from '../../lab/loader-process.ts';
import { readMemory, readOpenFiles } from '../../lab/proc.ts';
import { SERVICES_FOLDER } from '../../lab/services/services.ts';
import { LOG_FOLDER, RUN_FOLDER } from '../../lab/test-environment.ts';

export interface TestLoaderOptions {
  readonly env: Readonly<Record<string, string>>;
  /** User ID to run as, for tests about permissions. */
  readonly uid?: number;
}

export interface JsonAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: { readonly detail?: unknown; readonly code?: string; readonly [name: string]: unknown };
}

/** A Loader process with what tests want of it: a log of everything, and short ways to its routes. */
export class TestLoader {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** What it wants with each request: the first of its API keys, where it has any. */
  readonly authorization: Readonly<Record<string, string>>;
  readonly #process: LoaderProcess;

  private constructor(loader: LoaderProcess, apiKeys: string | undefined) {
    this.#process = loader;
    this.url = loader.url;
    this.port = loader.port;
    this.pid = loader.pid;
    this.authorization = apiKeys === undefined ? {} : { authorization: `Bearer ${apiKeys.split(',')[0] ?? ''}` };
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

  /** Log lines until now that have this message. */
  logLines(message: string): string[] {
    return this.log()
      .split('\n')
      .filter((line) => line.includes(JSON.stringify(message)));
  }

  async post(route: string, body: unknown, headers: Readonly<Record<string, string>> = {}): Promise<Response> {
    return await fetch(`${this.url}${route}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...this.authorization, ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
  }

  async postForJson(route: string, body: unknown, headers?: Readonly<Record<string, string>>): Promise<JsonAnswer> {
    return await readJson(await this.post(route, body, headers));
  }

  async login(email: string, password: string): Promise<JsonAnswer> {
    return await this.postForJson('/login', { email, password });
  }

  /** POST /load, as a Response whose body the caller reads. */
  async load(name: string, folder = 'models'): Promise<Response> {
    return await this.post(`/load/${encodeURIComponent(name)}`, { filename: name, folder });
  }

  /** POST /upload with the file before the folder, as curl and most clients do. */
  async upload(name: string, content: Uint8Array<ArrayBuffer> | Blob, folder?: string): Promise<JsonAnswer> {
    const form = new FormData();
    form.append('data', content instanceof Blob ? content : new Blob([content]), name);
    if (folder !== undefined) form.append('folder', folder);
    const url = `${this.url}/upload/${encodeURIComponent(name)}`;
    return await readJson(await fetch(url, { method: 'POST', body: form, headers: this.authorization }));
  }

  /** What its file descriptors point to, under `folder`; the tasks' database, which is always open, is left out. */
  openFilesUnder(folder: string): string[] {
    return readOpenFiles(this.pid).filter(
      (target) => target.startsWith(folder) && !/\/tasks\.db(-wal|-shm)?$/.test(target),
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

  /** Its exit code, when it ends by itself. */
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
      // Of Node: the next start takes half the time. Only a Loader that ends by itself writes it.
      NODE_COMPILE_CACHE: path.join(SERVICES_FOLDER, 'compile-cache'),
      ...env,
    },
  };
}

/** Reads a JSON answer, and keeps it beside the logs for the test that looks for secrets. */
export async function readJson(response: Response): Promise<JsonAnswer> {
  const text = await response.text();
  appendFileSync(path.join(LOG_FOLDER, 'answers.log'), `${text}\n`);
  return { status: response.status, headers: response.headers, body: JSON.parse(text) as JsonAnswer['body'] };
}
