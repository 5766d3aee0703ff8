import type { CacheUsage, Usage } from './cache/cache-usage.ts';
import type { DockerEngine } from './docker/docker-engine.ts';
import type { HardwareFingerprint } from './hardware/hardware-fingerprint.ts';
import type { LoaderFolders } from './loader-folders.ts';
import type { Problem, Readiness } from './readiness.ts';
import type { LoginStatus } from './upstream/upstream.ts';

export interface DeviceStatusOptions {
  readonly upstream: { readonly loginStatus: LoginStatus };
  readonly fingerprint: Pick<HardwareFingerprint, 'digest'>;
  readonly folders: Pick<LoaderFolders, 'freeCacheBytes'>;
  readonly cacheUsage: Pick<CacheUsage, 'latest'>;
  readonly engine: Pick<DockerEngine, 'host' | 'lastAnswer'>;
  readonly readiness: Pick<Readiness, 'problems'>;
}

/** What an operator asks first of a device that is far away. */
export interface DeviceReport {
  readonly login: LoginStatus;
  /** Of the hardware string that the last login used: undefined before the first one. */
  readonly hardwareDigest: string | undefined;
  /** `freeBytes` is undefined where the cache can't be used. */
  readonly cache: Usage & { readonly freeBytes: number | undefined };
  readonly engine: Pick<DockerEngine, 'host' | 'lastAnswer'>;
  readonly problems: readonly Problem[];
}

/** Reports on the whole device. It asks nothing over the network, and walks through the cache at most every 15 s. */
export class DeviceStatus {
  readonly #options: DeviceStatusOptions;

  constructor(options: DeviceStatusOptions) {
    this.#options = options;
  }

  async report(): Promise<DeviceReport> {
    const { upstream, fingerprint, folders, cacheUsage, engine, readiness } = this.#options;
    const [usage, freeBytes, problems] = await Promise.all([
      cacheUsage.latest(),
      folders.freeCacheBytes(),
      readiness.problems(),
    ]);
    return {
      login: upstream.loginStatus,
      hardwareDigest: fingerprint.digest,
      cache: { ...usage, freeBytes },
      engine,
      problems,
    };
  }
}
