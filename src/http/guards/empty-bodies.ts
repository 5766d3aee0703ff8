import type { FastifyInstance } from 'fastify';
import { hasBody } from './has-body.ts';

/**
 * Ignores the content type of a DELETE without a body, which many clients send with each of their requests. Fastify would
 * refuse the empty body, since it is no valid JSON.
 */
export function registerEmptyBodies(app: FastifyInstance): void {
  app.addHook('onRequest', async ({ method, raw }) => {
    if (method === 'DELETE' && !hasBody(raw)) delete raw.headers['content-type'];
    return Promise.resolve();
  });
}
