import type { FastifyInstance } from 'fastify';

/**
 * Lets a DELETE without a body say what type that body has, as many clients do with each of their requests: nobody reads
 * it, so it need not be valid JSON.
 */
export function registerEmptyBodies(app: FastifyInstance): void {
  app.addHook('onRequest', async ({ method, raw }) => {
    const { headers } = raw;
    const isEmpty = headers['transfer-encoding'] === undefined && Number(headers['content-length'] ?? 0) === 0;
    if (method === 'DELETE' && isEmpty) delete headers['content-type'];
    return Promise.resolve();
  });
}
