import type { FastifyInstance } from 'fastify';
import type { ApiClient } from '../../api-client/api-client.ts';

export interface HealthRoutesOptions {
  readonly apiClient: Pick<ApiClient, 'status'>;
  readonly modelCacheDir: string;
}

/** GET /health and GET /status: containers' health checks. Neither touches anything outside the process. */
export function registerHealthRoutes(app: FastifyInstance, { apiClient, modelCacheDir }: HealthRoutesOptions): void {
  app.get('/health', { config: { access: 'open' } }, () => ({ status: 'healthy' }));

  app.get('/status', () => ({ status: 'healthy', authenticated: apiClient.status.isAuthenticated, modelCacheDir }));
}
