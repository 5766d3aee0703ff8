import { rm } from 'node:fs/promises';
import path from 'node:path';
import { Origin, type OriginOptions } from '../lab/upstream/origin.ts';
import { DockerCli } from '../lab/services/docker-cli.ts';
import { startDockerd, stopDockerd, type DockerService } from '../lab/services/services.ts';
import { makeImageArchive, type ImageArchive } from './image-archive.ts';
import { LoaderUnderTest } from './loader-under-test.ts';
import { runProcess } from './run-process.ts';
import { runUnlock, unlock, type UnlockOutcome } from './run-unlock.ts';

/** In the bench's own folder: an engine beside those of the tests would end with them. */
const DOCKERD_NAME = 'bench/dockerd';

export interface UnlockStageOptions {
  readonly folder: string;
  readonly s3: NonNullable<OriginOptions['s3']>;
  readonly hardware: string;
  readonly signal: AbortSignal;
}

export interface UnlockingLoaderOptions {
  /** The file that Node runs. If it is absent, the Loader is the one that this checkout ships. */
  readonly main?: string | undefined;
  /** In the place of the stage's own engine. */
  readonly dockerHost?: string;
  readonly hasRightKey?: boolean;
}

/** A Loader process that is asked for nothing but the unlock. */
export interface UnlockingLoader {
  readonly process: LoaderUnderTest;
  /** Runs an unlock that must end as `ready`. Returns its time in ms. */
  readonly unlock: () => Promise<number>;
  /** Runs an unlock to any end. */
  readonly tryUnlock: () => Promise<UnlockOutcome>;
}

/** All that stands around an unlock: a private Docker engine, archives, Resource APIs with the right and a wrong key. */
export class UnlockStage {
  readonly engine: DockerService;
  readonly docker: DockerCli;
  readonly folder: string;
  readonly #options: UnlockStageOptions;
  readonly #origin: Origin;
  readonly #wrongOrigin: Origin;
  readonly #archives = new Map<number, ImageArchive>();
  #loader: LoaderUnderTest | undefined;

  private constructor(options: UnlockStageOptions, engine: DockerService, origin: Origin, wrongOrigin: Origin) {
    this.#options = options;
    this.engine = engine;
    this.folder = options.folder;
    this.docker = new DockerCli(engine.host);
    this.#origin = origin;
    this.#wrongOrigin = wrongOrigin;
  }

  /** Needs root. */
  static async start(options: UnlockStageOptions): Promise<UnlockStage> {
    const { folder, s3, signal } = options;
    const engine = await startDockerd(DOCKERD_NAME);
    signal.throwIfAborted();
    const [origin, wrongOrigin] = await Promise.all(
      ['right', 'wrong'].map((name) => Origin.start({ folder: path.join(folder, name), s3, bucket: `unlock-${name}` })),
    );
    if (origin === undefined || wrongOrigin === undefined) throw new Error('there are two of them');
    return new UnlockStage(options, engine, origin, wrongOrigin);
  }

  /** Stops the engine of any bench, and throws its data away. */
  static async clear(): Promise<void> {
    await stopDockerd(DOCKERD_NAME).catch(() => undefined); // It may never have been started.
  }

  /** The archive of about `length` bytes, made when it is asked for the first time. */
  async archive(length: number): Promise<ImageArchive> {
    const known = this.#archives.get(length);
    if (known !== undefined) return known;
    const { signal } = this.#options;
    const folder = path.join(this.folder, `archive-${length}`);
    const archive = await makeImageArchive({ folder, length, keyFragment: this.#origin.keyFragment, signal });
    this.#archives.set(length, archive);
    return archive;
  }

  /** A new process in the place of the one that ran. */
  async freshLoader(
    archive: ImageArchive,
    { dockerHost = this.engine.host, hasRightKey = true, main }: UnlockingLoaderOptions = {},
  ): Promise<UnlockingLoader> {
    await this.stopLoader();
    const { hardware, signal } = this.#options;
    const loader = await LoaderUnderTest.start({
      ...(main === undefined ? {} : { main }),
      env: {
        RESOURCE_API_URL: (hasRightKey ? this.#origin : this.#wrongOrigin).api.url,
        MODEL_CACHE_DIR: path.join(this.folder, 'cache'),
        STATE_DIR: this.#stateFolder,
        IMAGES_PATH: archive.envelopePath,
        DOCKER_HOST: dockerHost,
        HARDWARE_ID: hardware,
      },
      logPath: path.join(this.folder, 'loader.log'),
      signal,
    });
    this.#loader = loader;
    return {
      process: loader,
      unlock: () => unlock(loader.client),
      tryUnlock: () => runUnlock(loader.client),
    };
  }

  async stopLoader(): Promise<void> {
    await this.#loader?.stop();
    this.#loader = undefined;
  }

  /** Makes the next start look into the archive. */
  async removeReceipt(): Promise<void> {
    await rm(this.#stateFolder, { recursive: true, force: true });
  }

  /** Leaves the engine without an image, and the disk without work. */
  async removeImages(): Promise<void> {
    this.#options.signal.throwIfAborted();
    await this.docker.removeAll();
    await this.settle();
  }

  /** Leaves the engine with all images of the archive but one. */
  async removeOneImage(archive: ImageArchive): Promise<void> {
    this.#options.signal.throwIfAborted();
    await this.assertLoaded(archive);
    await this.docker.remove(archive.imageIds[0] ?? '');
    await this.settle();
  }

  /** Waits until all that was written is on the disk. */
  async settle(): Promise<void> {
    await runProcess('sync', [], { signal: this.#options.signal });
  }

  /** What is measured must be right first. */
  async assertLoaded(archive: ImageArchive): Promise<void> {
    const present = await this.docker.imageIds();
    if (present.join() === archive.imageIds.join()) return;
    throw new Error(`the engine has ${present.length} images, which are not the ${archive.imageIds.length} expected`);
  }

  async stop(): Promise<void> {
    await this.stopLoader();
    await this.docker.close();
    await this.#origin.stop();
    await this.#wrongOrigin.stop();
    await UnlockStage.clear();
  }

  get #stateFolder(): string {
    return path.join(this.folder, 'state');
  }
}
