import type { FastifyInstance } from 'fastify';
import { answerMethodNotAllowed } from './error-handler.ts';

/** The methods of each path whose routes are registered after this call. */
export function collectMethods(app: FastifyInstance): ReadonlyMap<string, ReadonlySet<string>> {
  const methodsByUrl = new Map<string, Set<string>>();
  app.addHook('onRoute', ({ url, method }) => {
    const methods = methodsByUrl.get(url) ?? new Set();
    for (const name of [method].flat()) methods.add(name);
    methodsByUrl.set(url, methods);
  });
  return methodsByUrl;
}

/** Refuses all other methods on these paths with 405. Fastify itself would respond with 404. */
export function registerMethodNotAllowed(
  app: FastifyInstance,
  methodsByUrl: ReadonlyMap<string, ReadonlySet<string>>,
): void {
  const known = [...methodsByUrl].map(([url, methods]) => ({ url, allowed: [...methods] }));
  for (const { url, allowed } of known) {
    app.route({
      method: app.supportedMethods.filter((name) => !allowed.includes(name)),
      url,
      exposeHeadRoute: false,
      config: { access: 'open' },
      // Refuses before the body is read.
      onRequest: async (_request, reply) => answerMethodNotAllowed(reply, allowed),
      handler: () => undefined,
    });
  }
}
