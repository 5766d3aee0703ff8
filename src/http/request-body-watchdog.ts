import type { FastifyInstance } from 'fastify';

/**
 * Destroys the connection of a client that sends nothing for `timeoutMs` before its body is complete.
 *
 * Times in which we do not read, because what comes after us is slower, count too; those have watchdogs of their own,
 * which are shorter.
 */
export function registerRequestBodyWatchdog(app: FastifyInstance, timeoutMs: number): void {
  app.addHook('onRequest', (request, _reply, done) => {
    const { raw } = request;
    if (!raw.complete) {
      const { socket } = raw;
      // Without a listener for it, Node destroys a socket that times out.
      socket.setTimeout(timeoutMs);
      raw.once('end', () => socket.setTimeout(0));
    }
    done();
  });
}
