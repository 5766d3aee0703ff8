import type { ApiClient } from '../../api-client/api-client.ts';
import type { DeviceStatus } from '../../device-status.ts';
import { failures, type HttpApp } from '../schemas/responses.ts';
import type { Readiness } from '../../readiness.ts';
import { HEALTH, NOT_READY, READY, STATUS, toNotReady, toStatus } from '../schemas/health.ts';

export interface HealthRoutesOptions {
  readonly apiClient: Pick<ApiClient, 'status' | 'unlockStatus'>;
  readonly deviceStatus: Pick<DeviceStatus, 'report'>;
  readonly readiness: Pick<Readiness, 'problems'>;
  readonly modelCacheDir: string;
}

/** GET /health, GET /ready and GET /status, for the health checks of containers. None asks anything over the network. */
export function registerHealthRoutes(
  app: HttpApp,
  { apiClient, deviceStatus, readiness, modelCacheDir }: HealthRoutesOptions,
): void {
  app.get(
    '/health',
    {
      schema: {
        operationId: 'getHealth',
        summary: 'Whether the process serves requests',
        tags: ['health'],
        response: { ...failures(), 200: HEALTH },
      },
      config: { access: 'open', isHealthCheck: true },
    },
    () => ({ status: 'healthy' as const }),
  );

  app.get(
    '/ready',
    {
      schema: {
        operationId: 'getReady',
        summary: 'Whether all of its work can be done',
        tags: ['health'],
        response: { ...failures(), 200: READY, 503: NOT_READY },
      },
      config: { access: 'open', isHealthCheck: true },
    },
    async (_request, reply) => {
      const problems = await readiness.problems();
      if (problems[0] === undefined) return { ready: true };
      return await reply.code(503).send(toNotReady([problems[0], ...problems.slice(1)]));
    },
  );

  app.get(
    '/status',
    {
      schema: {
        operationId: 'getStatus',
        summary: 'How the device is',
        tags: ['health'],
        response: { ...failures(), 200: STATUS },
      },
      config: { isHealthCheck: true },
    },
    async () => {
      return toStatus(await deviceStatus.report(), {
        ...apiClient.status,
        modelCacheDir,
        unlock: apiClient.unlockStatus,
      });
    },
  );
}
