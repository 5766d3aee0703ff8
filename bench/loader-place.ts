import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { eventually } from '../lab/waiting.ts';
import { DEMO_USER } from '../lab/upstream/origin.ts';
import { LoaderUnderTest } from './loader-under-test.ts';

export interface LoaderPlaceOptions {
  /** For cache, state and log. */
  readonly folder: string;
  /** The file that Node runs. If it is absent, the Loader is the one that this checkout ships. */
  readonly main?: string;
  readonly env: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

export interface FreshLoaderOptions {
  /** The file that Node runs this time. */
  readonly main?: string;
  readonly isLoggedIn?: boolean;
}

/** The folder of the resources that the bench moves. */
export const MODELS = 'models';
const PUBLISH_TIMEOUT_MS = 60_000;

/** A place for one Loader at a time: its program, its cache and state, and the process that runs. */
export class LoaderPlace {
  readonly cacheFolder: string;
  readonly stateFolder: string;
  readonly main: string | undefined;
  readonly #options: LoaderPlaceOptions;
  #loader: LoaderUnderTest | undefined;

  constructor(options: LoaderPlaceOptions) {
    this.#options = options;
    this.main = options.main;
    this.cacheFolder = path.join(options.folder, 'cache');
    this.stateFolder = path.join(options.folder, 'state');
  }

  /** The Loader that runs. If none runs, one is started and logged in. */
  async loader(): Promise<LoaderUnderTest> {
    return this.#loader ?? (await this.freshLoader());
  }

  /** Starts a new process in the place of the one that ran, and logs in unless `isLoggedIn` is false. */
  async freshLoader({ main = this.main, isLoggedIn = true }: FreshLoaderOptions = {}): Promise<LoaderUnderTest> {
    await this.stopLoader();
    const { folder, env, signal } = this.#options;
    this.#loader = await LoaderUnderTest.start({
      ...(main === undefined ? {} : { main }),
      env: { ...env, MODEL_CACHE_DIR: this.cacheFolder, STATE_DIR: this.stateFolder },
      logPath: path.join(folder, 'loader.log'),
      signal,
    });
    if (isLoggedIn) await this.#loader.login(DEMO_USER.email, DEMO_USER.password);
    return this.#loader;
  }

  async stopLoader(): Promise<void> {
    await this.#loader?.stop();
    this.#loader = undefined;
  }

  /** Stops the Loader and makes the next one know of no task. */
  async clearState(): Promise<void> {
    await this.stopLoader();
    await rm(this.stateFolder, { recursive: true, force: true });
  }

  /** Makes the next load one from the CDN. */
  async clearCache(): Promise<void> {
    await rm(this.cacheFolder, { recursive: true, force: true });
  }

  /** Makes the next load one from the cache. */
  async warm(resource: { readonly name: string; readonly length: number }): Promise<void> {
    await (await this.loader()).load(resource.name, resource.length);
    await this.untilCached(resource.name);
  }

  /** The cached big part of a resource. */
  bigPath(name: string): string {
    return path.join(this.cacheFolder, MODELS, `${name}.big`);
  }

  /**
   * Waits until the copy of a load or an upload is in the cache, with its digests, which earlier commits kept in a file of
   * their own. The client has its answer before: the
   * rest must not fall into the next measurement, nor come after `clearCache`.
   */
  async untilCached(name: string): Promise<void> {
    const big = this.bigPath(name);
    const { signal } = this.#options;
    await eventually(() => existsSync(big) && ['dsse', 'sums'].some((suffix) => existsSync(`${big}.${suffix}`)), {
      timeoutMs: PUBLISH_TIMEOUT_MS,
      signal,
      what: `the copy of ${name} in the cache`,
    });
  }
}
