import type { FastifyInstance } from 'fastify';
import type { Log } from './log/log.ts';
import type { Services } from './services.ts';
import { Shutdown } from './shutdown.ts';

export interface LoaderParts {
  readonly app: FastifyInstance;
  readonly services: Services;
  readonly host: string;
  readonly port: number;
  readonly shutdownTimeoutMs: number;
  readonly log: Log;
}

/** Runs the Loader until a signal or a fault ends the process. Returns when it listens. */
export async function runLoader(parts: LoaderParts): Promise<void> {
  const { app, services, host, port } = parts;
  handleProcessEvents(createShutdown(parts), parts);
  await services.folders.open();
  await services.cache.removeLeftovers();
  await services.apiClient.start();
  await services.tasks.start();
  await app.listen({ host, port });
  services.metrics.openSoon();
}

function createShutdown({ app, services, shutdownTimeoutMs, log }: LoaderParts): Shutdown {
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
    { logger: log.logger, timeoutMs: shutdownTimeoutMs, exit: (code) => void log.exit(code) },
  );
}

function handleProcessEvents(shutdown: Shutdown, { log }: LoaderParts): void {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void shutdown.stop(signal));
  process.on('SIGHUP', () => void log.reopenFile());
  // Node itself would write them to stderr: past the search for secrets, and waiting where that is a terminal.
  process.removeAllListeners('warning');
  process.on('warning', (warning) => log.logger.warn({ err: warning }, 'Node warns'));
  process.on('uncaughtException', (error) => {
    void shutdown.stopAfterFault(error, 'An exception was not caught: the Loader stops');
  });
  process.on('unhandledRejection', (reason) => {
    void shutdown.stopAfterFault(reason, 'A promise was rejected and nothing awaited it: the Loader stops');
  });
}
