import type { FastifyInstance } from 'fastify';
import { hasBody } from './has-body.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The route watches its body itself, since it may keep the client waiting for longer than a client may be silent. */
    watchesBody?: true;
  }
}

/**
 * Destroys the connection of a client that sends nothing for `timeoutMs` before its body is complete, or that then reads
 * nothing of a JSON response. Without a listener for it, Node destroys a socket that times out.
 */
export function registerBodyWatchdog(app: FastifyInstance, timeoutMs: number): void {
  app.addHook('onRequest', (request, reply, done) => {
    const { raw } = request;
    if (hasBody(raw) && request.routeOptions.config.watchesBody !== true) {
      const { socket } = raw;
      socket.setTimeout(timeoutMs);
      raw.once('end', () => {
        // After the end of the response, Node has set the timeout of a connection that is kept alive.
        if (!reply.raw.writableFinished) socket.setTimeout(0);
      });
    }
    done();
  });
  // Hijacked responses, which may pause for longer, do not come here. Node sets another timeout at the end.
  app.addHook('onSend', (request, _reply, _payload, done) => {
    request.raw.socket.setTimeout(timeoutMs);
    done();
  });
}
