import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { open, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { curlDigest, curlDownload, curlSend, type Transfer } from './curl.ts';

const MAIN = path.resolve(import.meta.dirname, '../src/main.ts');
const START_TIMEOUT_MS = 20_000;
const POLL_MS = 20;

export interface LoaderOptions {
  /** What is run in the place of the Loader's own main file. */
  readonly main?: string;
  readonly env: Readonly<Record<string, string>>;
  readonly logPath: string;
  readonly signal: AbortSignal;
}

/** A Loader process with the log level that users have, and curl as its client. */
export class LoaderUnderTest {
  readonly url: string;
  readonly pid: number;
  /** What every request says of itself: the key, where the Loader has one. */
  readonly headers: Readonly<Record<string, string>>;
  readonly #child: ChildProcess;
  readonly #signal: AbortSignal;

  private constructor(child: ChildProcess, url: string, { env, signal }: LoaderOptions) {
    const key = env['API_KEY'];
    this.#child = child;
    this.pid = child.pid ?? 0;
    this.url = url;
    this.headers = key === undefined ? {} : { authorization: `Bearer ${key}` };
    this.#signal = signal;
  }

  static async start(options: LoaderOptions): Promise<LoaderUnderTest> {
    const { main = MAIN, env, logPath, signal } = options;
    // Straight into a file: a pipe would be emptied by this process, which has other things to do.
    const log = await open(logPath, 'w');
    const child = spawn(process.execPath, [main], {
      detached: true, // Ctrl-C is for the bench, which stops it.
      env: { PATH: process.env['PATH'], PORT: '0', LOG_LEVEL: 'info', ...env },
      stdio: ['ignore', log.fd, log.fd],
    });
    await once(child, 'spawn');
    await log.close();
    try {
      const url = await waitForUrl(child, logPath, signal);
      return new LoaderUnderTest(child, url, options);
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  async login(email: string, password: string): Promise<void> {
    const body = JSON.stringify({ email, password });
    await curlSend([...this.#headerArgs(), ...JSON_HEADER, '-d', body, `${this.url}/login`], this.#signal);
  }

  /** Loads to /dev/null. */
  async load(name: string, length: number): Promise<Transfer> {
    return await curlDownload(this.#loadArgs(name), length, this.#signal);
  }

  async loadDigest(name: string): Promise<string> {
    return await curlDigest(this.#loadArgs(name), this.#signal);
  }

  /** Uploads with the file before the folder, as people type it. */
  async upload(name: string, filePath: string): Promise<Transfer> {
    const form = ['-F', `data=@${filePath}`, '-F', 'folder=models'];
    return await curlSend([...this.#headerArgs(), ...form, `${this.url}/upload/${name}`], this.#signal);
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await exited;
  }

  #loadArgs(name: string): string[] {
    const body = JSON.stringify({ filename: name, folder: 'models' });
    return [...this.#headerArgs(), ...JSON_HEADER, '-d', body, `${this.url}/load/${name}`];
  }

  #headerArgs(): string[] {
    return Object.entries(this.headers).flatMap(([name, value]) => ['-H', `${name}: ${value}`]);
  }
}

const JSON_HEADER = ['-H', 'Content-Type: application/json'];

async function waitForUrl(child: ChildProcess, logPath: string, signal: AbortSignal): Promise<string> {
  for (let waitedMs = 0; waitedMs < START_TIMEOUT_MS; waitedMs += POLL_MS) {
    const log = await readFile(logPath, 'utf8');
    const url = /Server listening at (http:\/\/[^"]+)/.exec(log)?.[1];
    if (url !== undefined) return url;
    if (child.exitCode !== null) throw new Error(`the Loader ended with ${child.exitCode}: ${log}`);
    await sleep(POLL_MS, undefined, { signal });
  }
  throw new Error(`the Loader did not listen within ${START_TIMEOUT_MS} ms`);
}
