import type { FastifyInstance } from 'fastify';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The route watches its body itself, since it may keep the client waiting for longer than a client may be silent. */
    watchesBody?: true;
  }
}

/** Destroys the connection of a client that sends nothing for `timeoutMs` before its body is complete. */
export function registerRequestBodyWatchdog(app: FastifyInstance, timeoutMs: number): void {
  app.addHook('onRequest', (request, _reply, done) => {
    const { raw } = request;
    if (!raw.complete && request.routeOptions.config.watchesBody !== true) {
      const { socket } = raw;
      // Without a listener for it, Node destroys a socket that times out.
      socket.setTimeout(timeoutMs);
      raw.once('end', () => socket.setTimeout(0));
    }
    done();
  });
}
