import { Agent } from 'undici';
import { ApiClient } from './upstream/upstream.ts';
import { ResourceApi } from './upstream/resource-api.ts';
import type { AppServices } from './http/app.ts';
import { BigPartCache } from './cache/big-part-cache.ts';
import type { Config } from './config/config.ts';
import { DockerEngine } from './docker/docker-engine.ts';
import { HardwareFingerprint } from './hardware/hardware-fingerprint.ts';
import { ActiveWork } from './api-client/active-work.ts';
import type { Logger } from './logger.ts';
import { DownloadService } from './resources/download-service.ts';
import { PublicationLock } from './async/keyed-read-write-lock.ts';
import { SharedTransfers } from './resources/shared-transfers.ts';
import { UploadService } from './resources/upload-service.ts';
import { createProviders } from './providers/providers.ts';
import { TaskService } from './tasks/tasks.ts';
import { Presence } from './unlock/presence.ts';
import { Receipt } from './unlock/receipt.ts';
import { UnlockService } from './unlock/unlock-service.ts';

export interface Services extends AppServices {
  readonly cache: BigPartCache;
  /** Closes the tasks' database, and the connections upstream and to the engine. For the end of the process. */
  close(): Promise<void>;
}

/** Makes every object of the Loader, once, and gives each what it needs. It does no I/O. */
export function createServices(config: Config, logger: Logger): Services {
  const dispatcher = new Agent();
  const apiClient = new ApiClient({
    api: new ResourceApi({ baseUrl: config.resourceApiUrl, dispatcher, timeoutMs: config.upstreamTimeoutMs }),
    fingerprint: new HardwareFingerprint(config.hardwareId),
    keyTemplates: config.keyTemplates,
    resourceKey: config.resourceKey,
    tokenKeys: config.tokenKeys,
    stallTimeoutMs: config.stallTimeoutMs,
    logger,
  });
  const cache = new BigPartCache(config.modelCacheDir, logger);
  const publicationLock = new PublicationLock();
  const transfers = new SharedTransfers();
  const engine = new DockerEngine({ host: config.dockerHost, timeoutMs: config.engineTimeoutMs });
  const receipt = new Receipt(config.stateDir);
  const downloads = new DownloadService({ apiClient, cache, publicationLock, transfers, logger });
  const unlocks = new UnlockService({
    apiClient,
    presence: new Presence({ ...config, engine, receipt, archivePath: config.imagesPath }),
    receipt,
    job: {
      path: config.imagesPath,
      dockerHost: config.dockerHost,
      engineTimeoutMs: config.engineTimeoutMs,
      parallelism: config.unlockParallelism,
      stallTimeoutMs: config.engineStallTimeoutMs,
    },
    logger,
  });
  const providers = createProviders({ apiClient, cache, downloads, unlocks });
  const tasks = new TaskService({ ...config, providers, logger });
  return {
    apiClient,
    cache,
    downloads,
    uploads: new UploadService({ apiClient, cache, publicationLock, logger }),
    unlocks,
    tasks,
    activeWork: new ActiveWork(),
    close: async () => {
      tasks.close();
      apiClient.close();
      await Promise.all([dispatcher.destroy(), engine.close()]);
    },
  };
}
