import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { DemoEngine } from './demo-engine.ts';
import { LoaderClient } from '../lab/loader-client.ts';
import { LoaderProcess } from '../lab/loader-process.ts';
import { Origin } from '../lab/upstream/origin.ts';

/** The API key of the demo's Loader, which listens on loopback only. */
export const DEMO_API_KEY = 'demo-key';

/** How long the Loader may take to finish what is under way before it is killed, in ms. */
const STOP_TIMEOUT_MS = 5_000;

/**
 * All that a demo starts and must end: a temporary folder, the stand-in upstream in this process, a Loader, images in the
 * Docker engine.
 */
export class DemoStage {
  readonly folder: string;
  readonly modelPath: string;
  readonly cacheFolder: string;
  readonly archivePath: string;
  readonly #env: NodeJS.ProcessEnv;
  #origin: Origin | undefined;
  #loader: LoaderProcess | undefined;
  #engine: DemoEngine | undefined;

  private constructor(folder: string, env: NodeJS.ProcessEnv) {
    this.#env = env;
    this.folder = folder;
    this.modelPath = path.join(folder, 'model.bin');
    this.cacheFolder = path.join(folder, 'models');
    this.archivePath = path.join(folder, 'images.enc');
  }

  /** `env`: of the demo; the Loader gets of it what it needs for the engine. */
  static async create(env: NodeJS.ProcessEnv): Promise<DemoStage> {
    const stage = new DemoStage(await mkdtemp(path.join(tmpdir(), 'azaion-loader-demo-')), env);
    // This process may end without a `clear`.
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

  /** For the Loaders that are started from now on. What they bring into it is removed at the end. */
  useEngine(engine: DemoEngine): void {
    this.#engine = engine;
  }

  /** Starts a Loader in the place of the one that ran, and returns its URL. It has this machine's real hardware string. */
  async startLoader(signal: AbortSignal): Promise<string> {
    await this.#stopLoader();
    const { PATH, DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH } = this.#env;
    const env = {
      PATH,
      // Without an engine, they may be what no Loader starts with.
      ...(this.#engine === undefined ? {} : { DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH }),
      HOST: '127.0.0.1',
      PORT: '0',
      API_KEY: DEMO_API_KEY,
      RESOURCE_API_URL: this.#origin?.api.url,
      MODEL_CACHE_DIR: this.cacheFolder,
      STATE_DIR: path.join(this.folder, 'state'),
      IMAGES_PATH: this.archivePath,
    };
    this.#loader = await LoaderProcess.start({ env, logPath: path.join(this.folder, 'loader.log'), signal });
    return this.#loader.url;
  }

  /** The URL of the Loader that was started last. */
  get loaderUrl(): string {
    return this.#loader?.url ?? '';
  }

  /** A client of that Loader. `signal` ends its requests. */
  client(signal: AbortSignal): LoaderClient {
    return new LoaderClient({ url: this.loaderUrl, apiKey: DEMO_API_KEY, signal });
  }

  /** The key fragment that the Resource API gives for an unlock. */
  get keyFragment(): Buffer {
    return this.#origin?.keyFragment ?? Buffer.alloc(0);
  }

  /** The end of the Loader's log, if a Loader was started. */
  get lastLogLines(): readonly string[] {
    return this.#loader?.lastLogLines ?? [];
  }

  /** The number of requests to the CDN for an object. */
  get cdnDownloads(): number {
    return this.#origin?.s3Downloads ?? 0;
  }

  /** Waits until `signal` aborts. @throws Error when the Loader ends before that */
  async stayUp(signal: AbortSignal): Promise<void> {
    const ended = this.#loader?.exited().then((code) => {
      throw new Error(`the Loader ended although no one had stopped it (${code ?? 'by a signal'})`);
    });
    await Promise.race([ended, signal.aborted ? undefined : once(signal, 'abort')]);
  }

  /** Ends everything and removes its files and images. */
  async clear(): Promise<void> {
    await this.#stopLoader();
    await this.#origin?.stop();
    await rm(this.folder, { recursive: true, force: true });
    // Last: of all this, an engine is the likeliest to fail.
    await this.#engine?.clear();
  }

  async #stopLoader(): Promise<void> {
    await this.#loader?.stop('SIGTERM', STOP_TIMEOUT_MS);
  }
}
