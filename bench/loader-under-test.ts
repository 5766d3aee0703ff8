import { LoaderClient } from '../lab/loader-client.ts';
import { LoaderProcess, type LoaderProcessOptions } from '../lab/loader-process.ts';
import { TaskClient } from '../lab/task-client.ts';
import { curlDigest, curlDownload, curlSend, type Transfer } from './curl.ts';

export interface LoaderOptions extends Pick<LoaderProcessOptions, 'main' | 'logPath'> {
  readonly env: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

const JSON_HEADER = ['-H', 'Content-Type: application/json'];

/** A Loader process with the log level that users have, and curl as its client. */
export class LoaderUnderTest {
  readonly url: string;
  readonly pid: number;
  /** For what is too small for curl. */
  readonly client: LoaderClient;
  readonly #process: LoaderProcess;
  readonly #signal: AbortSignal;

  private constructor(loader: LoaderProcess, { env, signal }: LoaderOptions) {
    this.#process = loader;
    this.pid = loader.pid;
    this.url = loader.url;
    this.client = new LoaderClient({ url: loader.url, apiKey: env['API_KEY'], signal });
    this.#signal = signal;
  }

  get tasks(): TaskClient {
    return new TaskClient(this.client);
  }

  static async start(options: LoaderOptions): Promise<LoaderUnderTest> {
    const env = { LOG_LEVEL: 'info', ...options.env };
    return new LoaderUnderTest(await LoaderProcess.start({ ...options, env }), options);
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

  /** Uploads with the file before the folder, as a user types it. */
  async upload(name: string, filePath: string): Promise<Transfer> {
    const form = ['-F', `data=@${filePath}`, '-F', 'folder=models'];
    return await curlSend([...this.#headerArgs(), ...form, `${this.url}/upload/${name}`], this.#signal);
  }

  async stop(): Promise<void> {
    await this.#process.stop();
  }

  #loadArgs(name: string): string[] {
    const body = JSON.stringify({ filename: name, folder: 'models' });
    return [...this.#headerArgs(), ...JSON_HEADER, '-d', body, `${this.url}/load/${name}`];
  }

  #headerArgs(): string[] {
    return Object.entries(this.client.authorization).flatMap(([name, value]) => ['-H', `${name}: ${value}`]);
  }
}
