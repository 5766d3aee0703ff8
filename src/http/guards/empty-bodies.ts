import type { FastifyInstance } from 'fastify';

/**
 * Ignores the content type of a DELETE without a body, which many clients send with each of their requests. Fastify would
 * refuse the empty body, since it is no valid JSON.
 */
export function registerEmptyBodies(app: FastifyInstance): void {
  app.addHook('onRequest', async ({ method, raw }) => {
    const { headers } = raw;
    const isEmpty = headers['transfer-encoding'] === undefined && Number(headers['content-length'] ?? 0) === 0;
    if (method === 'DELETE' && isEmpty) delete headers['content-type'];
    return Promise.resolve();
  });
}
