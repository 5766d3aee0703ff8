import { Agent } from 'undici';
import { ApiClient } from './api-client/api-client.ts';
import { ResourceApi } from './api-client/resource-api.ts';
import { buildApp } from './app.ts';
import { BigPartCache } from './cache/big-part-cache.ts';
import { ConfigError, loadConfig, type Config } from './config.ts';
import { HardwareFingerprint } from './hardware/hardware-fingerprint.ts';
import { createLogger, type Logger } from './logger.ts';
import { DownloadService } from './resources/download-service.ts';
import { PublicationLock } from './resources/publication-lock.ts';
import { SharedTransfers } from './resources/shared-transfers.ts';
import { UploadService } from './resources/upload-service.ts';
import { Shutdown } from './shutdown.ts';

/** Makes all objects, once, and starts the server. */
async function start(config: Config, logger: Logger): Promise<void> {
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
  const downloads = new DownloadService({
    apiClient,
    cache,
    publicationLock,
    transfers: new SharedTransfers(),
    logger,
  });
  const uploads = new UploadService({ apiClient, cache, publicationLock, logger });
  const app = await buildApp(
    { apiClient, downloads, uploads },
    {
      logger,
      modelCacheDir: config.modelCacheDir,
      apiKeys: config.apiKeys,
      clientStallTimeoutMs: config.clientStallTimeoutMs,
    },
  );

  const shutdown = new Shutdown(
    [
      {
        name: 'requests',
        run: async (deadline) => {
          deadline.addEventListener('abort', () => {
            app.server.closeAllConnections();
          });
          await app.close();
        },
      },
      {
        name: 'connections',
        run: async () => {
          apiClient.close();
          await dispatcher.destroy();
        },
      },
    ],
    { logger, timeoutMs: config.shutdownTimeoutMs, exit: (code) => process.exit(code) },
  );
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void shutdown.stop(signal));

  await cache.removeLeftovers();
  await app.listen({ host: config.host, port: config.port });
}

try {
  const config = loadConfig();
  await start(config, createLogger({ level: config.logLevel, file: config.logFile }));
} catch (error) {
  const isConfigError = error instanceof ConfigError;
  process.stderr.write(`${isConfigError ? error.message : `The Loader could not start: ${String(error)}`}\n`);
  process.exit(1);
}
