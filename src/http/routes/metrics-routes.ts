import type { DeviceMetrics } from '../../device-metrics.ts';
import { failures, streamResponse, type HttpApp } from '../schemas/responses.ts';

export interface MetricsRoutesOptions {
  readonly deviceMetrics: Pick<DeviceMetrics, 'render'>;
}

/** GET /metrics, for Prometheus. It is open, as health checks are: no label names a resource, a user or a host. */
export function registerMetricsRoutes(app: HttpApp, { deviceMetrics }: MetricsRoutesOptions): void {
  app.get(
    '/metrics',
    {
      schema: {
        operationId: 'getMetrics',
        summary: 'What happened since the start, for Prometheus',
        tags: ['health'],
        response: {
          ...failures(),
          200: streamResponse('text/plain', "Prometheus' text format, version 0.0.4."),
        },
      },
      config: { access: 'open', isHealthCheck: true },
    },
    async (_request, reply) => {
      const { text, mediaType } = await deviceMetrics.render();
      return await reply.type(mediaType).send(text);
    },
  );
}
