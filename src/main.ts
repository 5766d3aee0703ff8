import { buildApp } from './http/app.ts';
import { ConfigError, loadConfig, type Config } from './config/config.ts';
import { createLogger, type Logger } from './logger.ts';
import { createServices } from './services.ts';
import { Shutdown } from './shutdown.ts';

/** Builds the Loader, listens, and stops at a signal. */
async function start(config: Config, logger: Logger): Promise<void> {
  const services = createServices(config, logger);
  const app = await buildApp(services, { ...config, logger });

  const finishRequests = async (deadline: AbortSignal) => {
    deadline.addEventListener('abort', () => app.server.closeAllConnections());
    // Together: from the beginning on, no new request is taken.
    await Promise.all([app.close(), services.apiClient.stop(deadline), services.tasks.stop()]);
  };
  const shutdown = new Shutdown(
    [
      { name: 'requests', run: finishRequests },
      { name: 'connections', run: () => services.close() },
    ],
    { logger, timeoutMs: config.shutdownTimeoutMs, exit: (code) => process.exit(code) },
  );
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void shutdown.stop(signal));

  await services.cache.removeLeftovers();
  await services.tasks.start();
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
