import { ApiClient } from './api-client/api-client.ts';
import { BigPartCache } from './cache/big-part-cache.ts';
import { CacheUsage } from './cache/cache-usage.ts';
import type { Config } from './config/config.ts';
import { parseSecret, parseSecretList, type RotatedSecret } from './config/secrets.ts';
import { DeviceMetrics } from './device-metrics.ts';
import { DeviceStatus } from './device-status.ts';
import { DockerEngine } from './docker/docker-engine.ts';
import type { AppServices } from './http/app.ts';
import { ChangingFile } from './files/changing-file.ts';
import { LoaderFolders } from './loader-folders.ts';
import type { KnownSecrets } from './log/known-secrets.ts';
import type { Logger } from './log/logger.ts';
import { Metrics, type UpstreamName } from './metrics/metrics.ts';
import { Dispatchers } from './net/dispatchers.ts';
import type { MeasuredCall } from './net/measured-calls.ts';
import { ProxyRules } from './net/proxy-rules.ts';
import { ServerClock } from './net/server-clock.ts';
import { createProviders } from './providers/providers.ts';
import { Readiness } from './readiness.ts';
import { Tasks } from './tasks/tasks.ts';
import { Presence } from './unlock/presence.ts';
import { receiptPath } from './unlock/receipt.ts';
import { VERSION } from './version.ts';

export interface ServicesParts {
  readonly logger: Logger;
  readonly secrets: KnownSecrets;
  /** Lines that each output of the log could not take since the start. */
  readonly lostLines?: () => ReadonlyMap<string, number>;
}

export interface Services extends AppServices {
  readonly apiClient: ApiClient;
  readonly cache: BigPartCache;
  readonly folders: LoaderFolders;
  readonly metrics: Metrics;
  /** Closes the tasks' database, the connections upstream and to the engine, and the folders. For the end of the process. */
  close(): Promise<void>;
}

/** What a Loader takes longer than SHUTDOWN_TIMEOUT_MS to stop, at the most, in ms. */
const LAST_STEPS_MS = 2_000;
/** Connections to the CDN of all downloads, and as many of all uploads. */
const CDN_CONNECTIONS = 32;
/** Calls of the Resource API are small. */
const API_CONNECTIONS = 16;

/**
 * Makes every object of the Loader, once, and gives each what it needs and no more: the configuration holds secrets, so
 * its fields are named one by one. It does no I/O.
 */
export function createServices(config: Config, { logger, secrets, lostLines }: ServicesParts): Services {
  const metrics = new Metrics({ version: VERSION });
  const folders = new LoaderFolders({
    modelCacheDir: config.modelCacheDir,
    stateDir: config.stateDir,
    waitMs: config.shutdownTimeoutMs + LAST_STEPS_MS,
    logger,
  });
  const cache = new BigPartCache(config.modelCacheDir, config.stateDir, logger, config.cacheMaxBytes);
  const engine = new DockerEngine({ host: config.dockerHost, timeoutMs: config.engineTimeoutMs });
  const dispatchers = new Dispatchers({
    proxies: new ProxyRules(config.proxies),
    caCertificates: config.caCertificates,
  });
  const onCall = (upstream: UpstreamName) => (call: MeasuredCall) => metrics.noteCall(upstream, call);
  const cdnOptions = {
    connectTimeoutMs: config.stallTimeoutMs,
    connections: CDN_CONNECTIONS,
    onCall: onCall('cdn'),
  };
  const links = {
    api: dispatchers.create({
      connectTimeoutMs: config.upstreamTimeoutMs,
      connections: API_CONNECTIONS,
      onCall: onCall('api'),
    }),
    downloads: dispatchers.create(cdnOptions),
    uploads: dispatchers.create(cdnOptions),
  };
  const presence = new Presence({
    engine,
    archivePath: config.imagesPath,
    receiptPath: receiptPath(config.stateDir),
    serviceImages: config.serviceImages,
    apiVersion: config.apiVersion,
  });
  const apiClient = new ApiClient({
    resourceApiUrl: config.resourceApiUrl,
    links,
    clock: new ServerClock({ onCorrection: (offsetMs) => warnOfClock(logger, offsetMs) }),
    upstreamTimeoutMs: config.upstreamTimeoutMs,
    stallTimeoutMs: config.stallTimeoutMs,
    memoryBudget: config.memoryBudget,
    hardwareId: config.hardwareId,
    keys: { templates: config.keyTemplates, resourceSecret: config.resourceKey },
    tokenKeys: config.tokenKeys,
    manifests: config.manifests,
    ownAccount: config.ownAccount && {
      email: config.ownAccount.email,
      password: rotated(config.ownAccount.password, parseSecret, (password) => secrets.keep(password), logger),
    },
    cache,
    stateDir: config.stateDir,
    secondLookMs: config.secondLookMs,
    engine,
    presence,
    unlockJob: {
      path: config.imagesPath,
      dockerHost: config.dockerHost,
      engineTimeoutMs: config.engineTimeoutMs,
      parallelism: config.unlockParallelism,
      stallTimeoutMs: config.engineStallTimeoutMs,
    },
    metrics,
    secrets,
    logger,
  });
  const { upstream, downloads, unlocks } = apiClient;
  const tasks = new Tasks({
    stateDir: config.stateDir,
    historyCount: config.historyCount,
    historyAgeMs: config.historyAgeMs,
    providers: createProviders({ upstream, cache, downloads, unlocks, prefetchOutageMs: config.prefetchOutageMs }),
    onEnd: ({ provider, status }) => metrics.noteTask(provider, status),
    logger,
  });
  const readiness = new Readiness({ upstream, folders });
  const deviceStatus = new DeviceStatus({
    upstream,
    fingerprint: apiClient.fingerprint,
    folders,
    cacheUsage: new CacheUsage(cache),
    engine,
    readiness,
  });
  return {
    apiClient,
    cache,
    folders,
    tasks,
    readiness,
    deviceStatus,
    deviceMetrics: new DeviceMetrics({
      metrics,
      deviceStatus,
      apiClient,
      tasks,
      lostLines: lostLines ?? (() => new Map<string, number>()),
    }),
    metrics,
    apiKeys: rotated(config.apiKeys, parseSecretList, (keys) => secrets.keep(...keys), logger),
    close: async () => {
      await apiClient.close();
      await dispatchers.destroy();
      tasks.close();
      await engine.close();
      folders.close();
    },
  };
}

/** A secret that is read again when its file has changed. The log says so, and leaves the new one out. */
function rotated<T>(
  { initial, path, variable }: RotatedSecret<T>,
  parse: (text: string) => T | undefined,
  keep: (value: T) => void,
  logger: Logger,
): ChangingFile<T> {
  return new ChangingFile({
    initial,
    path,
    parse,
    onChange: (value) => {
      keep(value);
      logger.info({ path }, `The file of ${variable} has changed: what it holds now is used`);
    },
    onFailure: (reason) => {
      logger.warn({ path }, `The file of ${variable} ${reason}: what it held before is still used`);
    },
  });
}

function warnOfClock(logger: Logger, offsetMs: number): void {
  const seconds = Math.round(Math.abs(offsetMs) / 1000);
  const side = offsetMs > 0 ? 'behind' : 'ahead of';
  const message = `The clock of this device is ${seconds} s ${side} that of the CDN, which refused a signature: set it`;
  logger.warn({ clockOffsetMs: offsetMs }, `${message}. Signatures take the time of the CDN now`);
}
