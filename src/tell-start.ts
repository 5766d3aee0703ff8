import path from 'node:path';
import type { Config } from './config/config.ts';
import { describeDockerHost } from './docker/docker-host.ts';
import type { Logger } from './log/logger.ts';
import type { Services } from './services.ts';
import { VERSION } from './version.ts';

const LOOPBACK = /^(127\.|::1$|localhost$)/;

/** Tells in the log, when the Loader has started, what it is, what it works with, and what is missing. */
export function tellStart(config: Config, services: Pick<Services, 'apiClient'>, logger: Logger): void {
  logger.info(
    {
      version: VERSION,
      node: process.version,
      api: new URL(config.resourceApiUrl).host,
      cache: path.resolve(config.modelCacheDir),
      state: path.resolve(config.stateDir),
      archive: config.imagesPath,
      engine: describeDockerHost(config.dockerHost),
      logsInByItself: config.ownAccount !== undefined,
      apiKeys: config.apiKeys.initial.length,
    },
    `Azaion.Loader ${VERSION} has started`,
  );
  if (config.apiKeys.initial.length === 0 && !LOOPBACK.test(config.host)) {
    logger.warn(
      { host: config.host },
      'No API key is set, and others can reach the Loader: set API_KEY_FILE, or HOST=127.0.0.1 where all clients are on this device',
    );
  }
  // What the folders lack is told when they are opened, and a login of the Loader's own tells its failures.
  const { missingLogin } = services.apiClient.upstream;
  if (config.ownAccount === undefined && missingLogin !== undefined) {
    const { code, message } = missingLogin;
    logger.warn({ code }, `${message} LOGIN_EMAIL and LOGIN_PASSWORD_FILE do so at each start`);
  }
}
