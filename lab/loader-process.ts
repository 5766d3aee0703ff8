import { spawn, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { appendFileSync, createWriteStream, mkdirSync, readFileSync } from 'node:fs';
import { readdir, readlink } from 'node:fs/promises';
import path from 'node:path';
import { LOG_FOLDER, RUN_FOLDER } from './test-environment.ts';

const MAIN = path.resolve(import.meta.dirname, '../src/main.ts');

const START_TIMEOUT_MS = 10_000;

export interface LoaderProcessOptions {
  readonly env: Readonly<Record<string, string>>;
  /** User ID to run as, for tests about permissions. */
  readonly uid?: number;
}

export interface JsonAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: { readonly detail?: unknown; readonly code?: string; readonly [name: string]: unknown };
}

/** The Loader as its users run it: a process of its own, on a free port, over real sockets. */
export class LoaderProcess {
  readonly url: string;
  readonly port: number;
  /** What it wants with each request: the first of its API keys, where it has any. */
  readonly authorization: Readonly<Record<string, string>>;
  readonly #child: ChildProcess;
  readonly #logPath: string;

  private constructor(child: ChildProcess, url: string, logPath: string, apiKeys: string | undefined) {
    this.#child = child;
    this.url = url;
    this.port = Number(new URL(url).port);
    this.authorization = apiKeys === undefined ? {} : { authorization: `Bearer ${apiKeys.split(',')[0] ?? ''}` };
    this.#logPath = logPath;
  }

  static async start(options: LoaderProcessOptions): Promise<LoaderProcess> {
    const { child, logPath } = LoaderProcess.#spawn(options);
    const url = await new Promise<string>((resolve, reject) => {
      let output = '';
      setTimeout(() => {
        reject(new Error(`the Loader did not say where it listens: ${output}`));
      }, START_TIMEOUT_MS).unref();
      const onData = (data: Buffer) => {
        output += data.toString();
        const match = /Server listening at (http:\/\/[^"]+)/.exec(output);
        if (match?.[1] !== undefined) resolve(match[1]);
      };
      child.stdout.on('data', onData);
      child.stderr.on('data', onData);
      child.once('exit', (code) => {
        reject(new Error(`the Loader ended with ${code}: ${output}`));
      });
    });
    return new LoaderProcess(child, url, logPath, options.env['API_KEY']);
  }

  /** Starts one that is killed after so many ms, whether it listens by then or not. */
  static async startAndKill(options: LoaderProcessOptions, afterMs: number): Promise<void> {
    const { child } = LoaderProcess.#spawn(options);
    const exited = new Promise((resolve) => child.once('exit', resolve));
    setTimeout(() => child.kill('SIGKILL'), afterMs);
    await exited;
  }

  static #spawn(options: LoaderProcessOptions) {
    mkdirSync(LOG_FOLDER, { recursive: true });
    const logPath = path.join(LOG_FOLDER, `${randomUUID()}.log`);
    const child = spawn(process.execPath, [MAIN], {
      env: {
        PATH: process.env['PATH'],
        PORT: '0',
        LOG_LEVEL: 'trace',
        HARDWARE_ID: 'test-hardware',
        STATE_DIR: path.join(RUN_FOLDER, 'state', randomUUID()),
        // Of node: the next start takes half the time. A Loader that ends by itself leaves it behind.
        NODE_COMPILE_CACHE: path.join(RUN_FOLDER, 'compile-cache'),
        ...options.env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
    });
    const log = createWriteStream(logPath);
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    return { child, logPath };
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Its log until now. */
  log(): string {
    return readFileSync(this.#logPath, 'utf8');
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
  async openFilesUnder(folder: string): Promise<string[]> {
    const targets = await this.#descriptors();
    return targets.filter((target) => target.startsWith(folder) && !/\/tasks\.db(-wal|-shm)?$/.test(target));
  }

  /** The most resident memory that it ever had, in bytes (proc(5), VmHWM). */
  peakMemory(): number {
    const kibibytes = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'))?.[1];
    return Number(kibibytes) * 1024;
  }

  async openSockets(): Promise<number> {
    return (await this.#descriptors()).filter((target) => target.startsWith('socket:')).length;
  }

  async #descriptors(): Promise<string[]> {
    const folder = `/proc/${this.pid}/fd`;
    const targets = (await readdir(folder)).map((fd) => readlink(path.join(folder, fd)).catch(() => ''));
    return await Promise.all(targets);
  }

  /** Sends a signal and waits for the exit code; null when a signal ended it. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return this.#child.exitCode;
    const exited = new Promise<number | null>((resolve) => this.#child.once('exit', resolve));
    this.#child.kill(signal);
    return await exited;
  }

  /** For a signal whose effect is awaited elsewhere. */
  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Its exit code, when it ends by itself. */
  async exited(): Promise<number | null> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return this.#child.exitCode;
    return await new Promise((resolve) => this.#child.once('exit', resolve));
  }
}

/** Reads a JSON answer, and keeps it beside the logs for the test that looks for secrets. */
export async function readJson(response: Response): Promise<JsonAnswer> {
  const text = await response.text();
  appendFileSync(path.join(LOG_FOLDER, 'answers.log'), `${text}\n`);
  return { status: response.status, headers: response.headers, body: JSON.parse(text) as JsonAnswer['body'] };
}
