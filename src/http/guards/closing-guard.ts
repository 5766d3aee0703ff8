import type { FastifyInstance } from 'fastify';
import { shuttingDown } from '../../errors.ts';

/** Refuses, with 503, requests that come over an open connection while the application closes. */
export function registerClosingGuard(app: FastifyInstance): void {
  let isClosing = false;
  app.addHook('preClose', (done) => {
    isClosing = true;
    done();
  });
  app.addHook('onRequest', (_request, reply, done) => {
    if (!isClosing) {
      done();
      return;
    }
    void reply.header('connection', 'close');
    done(shuttingDown());
  });
}
