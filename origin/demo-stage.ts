import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { LoaderChild } from './loader-child.ts';
import { Origin } from './origin.ts';

/** All that a demo starts and must end: a temporary folder, the stand-in upstream in this process, a Loader. */
export class DemoStage {
  readonly folder: string;
  readonly modelPath: string;
  readonly cacheFolder: string;
  #origin: Origin | undefined;
  #loader: LoaderChild | undefined;

  private constructor(folder: string) {
    this.folder = folder;
    this.modelPath = path.join(folder, 'model.bin');
    this.cacheFolder = path.join(folder, 'models');
  }

  static async create(): Promise<DemoStage> {
    const stage = new DemoStage(await mkdtemp(path.join(tmpdir(), 'azaion-loader-demo-')));
    // For whatever ends this process without a `clear`.
    process.once('exit', () => {
      stage.#loader?.kill();
      rmSync(stage.folder, { recursive: true, force: true });
    });
    return stage;
  }

  async startOrigin(): Promise<Origin> {
    this.#origin = await Origin.start({ folder: path.join(this.folder, 'origin') });
    return this.#origin;
  }

  /** Starts the Loader and answers its base URL. It runs on this machine's real hardware string. */
  async startLoader(signal: AbortSignal): Promise<string> {
    this.#loader = new LoaderChild({
      PATH: process.env['PATH'],
      HOST: '127.0.0.1',
      PORT: '0',
      RESOURCE_API_URL: this.#origin?.api.url,
      MODEL_CACHE_DIR: this.cacheFolder,
    });
    return await this.#loader.listening(signal);
  }

  /** Of the Loader, if it was started. */
  get lastLogLines(): readonly string[] {
    return this.#loader?.lastLogLines ?? [];
  }

  /** How often the CDN was asked for an object. */
  get cdnDownloads(): number {
    return this.#origin?.s3Downloads ?? 0;
  }

  /** Waits until `signal` aborts. @throws Error when the Loader ends before that */
  async stayUp(signal: AbortSignal): Promise<void> {
    const result = await this.#loader?.exitedBefore(signal);
    if (result !== undefined) throw new Error(`the Loader ended by itself (${result})`);
  }

  /** Ends everything and removes its files. */
  async clear(): Promise<void> {
    await this.#loader?.stop();
    await this.#origin?.stop();
    await rm(this.folder, { recursive: true, force: true });
  }
}
