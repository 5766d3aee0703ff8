import multipart from '@fastify/multipart';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import { fastify, LogController, type FastifyBaseLogger, type FastifyInstance } from 'fastify';
import type { ApiClient } from '../api-client/api-client.ts';
import { registerConnectionBounds } from './guards/connection-bounds.ts';
import { registerCrossSiteGuard } from './guards/cross-site-guard.ts';
import { MAX_URL_LENGTH, registerHeadBounds } from './guards/head-bounds.ts';
import { registerHostGuard } from './guards/host-guard.ts';
import { registerApiKeyGuard } from './guards/api-key-guard.ts';
import { answerClientError } from './errors/client-error.ts';
import { registerClosingGuard } from './guards/closing-guard.ts';
import { registerEmptyBodies } from './guards/empty-bodies.ts';
import { answerError, registerErrorHandler } from './errors/error-handler.ts';
import { collectMethods, registerMethodNotAllowed } from './errors/method-not-allowed.ts';
import { registerBodyWatchdog } from './guards/body-watchdog.ts';
import { registerLazyCompilers } from './schemas/lazy-compilers.ts';
import { beginRequestLine, registerRequestLog, requestId } from './request-log.ts';
import { registerRoutes } from './routes/routes.ts';
import type { DeviceMetrics } from '../device-metrics.ts';
import type { DeviceStatus } from '../device-status.ts';
import type { ChangingFile } from '../files/changing-file.ts';
import type { EndedRequest, Metrics } from '../metrics/metrics.ts';
import type { Logger } from '../log/logger.ts';
import type { Readiness } from '../readiness.ts';
import type { Tasks } from '../tasks/tasks.ts';

export interface AppServices {
  readonly apiClient: Pick<
    ApiClient,
    | 'status'
    | 'login'
    | 'load'
    | 'cachedResources'
    | 'upload'
    | 'unlock'
    | 'cancelUnlock'
    | 'unlockStatus'
    | 'watchUnlock'
  >;
  readonly tasks: Tasks;
  readonly readiness: Pick<Readiness, 'problems'>;
  readonly deviceStatus: Pick<DeviceStatus, 'report'>;
  readonly deviceMetrics: Pick<DeviceMetrics, 'render'>;
  readonly metrics: Pick<Metrics, 'noteRequest'>;
  readonly apiKeys: Pick<ChangingFile<readonly string[]>, 'latest' | 'value'>;
}

export interface AppOptions {
  readonly logger: Logger;
  readonly modelCacheDir: string;
  /** Names under which browsers may reach the Loader where there are no keys; in lower case. */
  readonly allowedHosts: readonly string[];
  /** How long a client may send or take nothing within a body, in ms. */
  readonly clientStallTimeoutMs: number;
}

const MAX_JSON_LENGTH = 1024 * 1024;
/** A form has one file and one field, and may have some more fields, which are ignored. */
const FORM_LIMITS = {
  fileSize: Infinity,
  files: 4,
  fields: 16,
  parts: 20,
  fieldSize: 16 * 1024,
  headerPairs: 20,
  headerSize: 16 * 1024,
};

/** Builds the HTTP application with all its routes. It does not listen. */
export async function buildApp(services: AppServices, options: AppOptions): Promise<FastifyInstance> {
  // Its type is widened here: otherwise it would become part of the type of every plugin.
  const loggerInstance: FastifyBaseLogger = options.logger;
  const onEnd = (request: EndedRequest) => services.metrics.noteRequest(request);
  const app = fastify({
    loggerInstance,
    bodyLimit: MAX_JSON_LENGTH,
    routerOptions: { maxParamLength: MAX_URL_LENGTH },
    forceCloseConnections: 'idle',
    return503OnClosing: false, // The closing guard responds in our shape.
    clientErrorHandler: answerClientError,
    // The request log has one line in the place of two.
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'request_id' }),
    genReqId: requestId,
    frameworkErrors: (error, request, reply) => {
      beginRequestLine(request, reply, onEnd);
      void answerError(error, request, reply);
    },
  });
  registerLazyCompilers(app);
  registerErrorHandler(app);
  registerRequestLog(app, onEnd);
  registerConnectionBounds(app);
  registerHeadBounds(app);
  registerClosingGuard(app);
  if (services.apiKeys.latest.length === 0) registerHostGuard(app, options);
  registerCrossSiteGuard(app);
  registerApiKeyGuard(app, services.apiKeys);
  registerEmptyBodies(app);
  registerBodyWatchdog(app, options.clientStallTimeoutMs);
  const methodsByUrl = collectMethods(app);
  await app.register(multipart, { limits: FORM_LIMITS });
  const { modelCacheDir, clientStallTimeoutMs } = options;
  registerRoutes(app.withTypeProvider<TypeBoxTypeProvider>(), { ...services, modelCacheDir, clientStallTimeoutMs });
  registerMethodNotAllowed(app, methodsByUrl);
  return app;
}
