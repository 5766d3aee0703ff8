import type { FastifyInstance } from 'fastify';
import type { LogFile } from './log/log-file.ts';
import type { Logger } from './log/logger.ts';
import type { Services } from './services.ts';
import { Shutdown } from './shutdown.ts';

export interface LoaderParts {
  readonly app: FastifyInstance;
  readonly services: Services;
  readonly host: string;
  readonly port: number;
  readonly shutdownTimeoutMs: number;
  readonly logger: Logger;
  /** Opened anew at SIGHUP. */
  readonly logFile: LogFile | undefined;
}

/** Runs the Loader until a signal or a fault ends the process. Returns when it listens. */
export async function runLoader(parts: LoaderParts): Promise<void> {
  const { app, services, host, port } = parts;
  handleProcessEvents(createShutdown(parts), parts);
  await services.cache.removeLeftovers();
  await services.apiClient.start();
  await services.tasks.start();
  await app.listen({ host, port });
}

function createShutdown({ app, services, shutdownTimeoutMs, logger }: LoaderParts): Shutdown {
  const finishRequests = async (deadline: AbortSignal) => {
    deadline.addEventListener('abort', () => app.server.closeAllConnections());
    // All at once: from now on, no new request is taken.
    await Promise.all([app.close(), services.apiClient.stop(deadline), services.tasks.stop()]);
  };
  return new Shutdown(
    [
      { name: 'requests', run: finishRequests },
      { name: 'connections', run: () => services.close() },
    ],
    { logger, timeoutMs: shutdownTimeoutMs, exit: (code) => process.exit(code) },
  );
}

function handleProcessEvents(shutdown: Shutdown, { logger, logFile }: LoaderParts): void {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void shutdown.stop(signal));
  process.on('SIGHUP', () => {
    logFile?.reopen();
    logger.info('SIGHUP: LOG_FILE, if there is one, was opened anew');
  });
  process.on('uncaughtException', (error) => {
    void shutdown.stopAfterFault(error, 'An exception was not caught: the Loader stops');
  });
  process.on('unhandledRejection', (reason) => {
    void shutdown.stopAfterFault(reason, 'A promise was rejected and nothing awaited it: the Loader stops');
  });
}
