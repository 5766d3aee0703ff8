import type { ApiClient } from '../../api-client/api-client.ts';
import { failures, type HttpApp } from '../schemas/responses.ts';
import { HEALTH, STATUS, toStatus } from '../schemas/health.ts';

export interface HealthRoutesOptions {
  readonly apiClient: Pick<ApiClient, 'status'>;
  readonly modelCacheDir: string;
}

/** GET /health and GET /status, for the health checks of containers. Neither touches anything outside the process. */
export function registerHealthRoutes(app: HttpApp, { apiClient, modelCacheDir }: HealthRoutesOptions): void {
  app.get(
    '/health',
    {
      schema: {
        operationId: 'getHealth',
        summary: 'Whether the process serves requests',
        tags: ['health'],
        response: { ...failures(), 200: HEALTH },
      },
      config: { access: 'open' },
    },
    () => ({ status: 'healthy' as const }),
  );

  app.get(
    '/status',
    {
      schema: {
        operationId: 'getStatus',
        summary: 'Whether a login has succeeded',
        tags: ['health'],
        response: { ...failures(), 200: STATUS },
      },
    },
    () => toStatus(apiClient.status, modelCacheDir),
  );
}
