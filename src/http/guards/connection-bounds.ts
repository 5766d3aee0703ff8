import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { LoaderError } from '../../errors.ts';

const MAX_CONNECTIONS = 1_000;
/** Connections beyond, whose requests are refused with a reason. More of them are closed at once. */
const EXTRA_CONNECTIONS = 100;

/**
 * Bounds the number of connections, and closes all of them with the application: at once those without a request under
 * way, even after half a request line, for which Node would wait; the others after their response.
 */
export function registerConnectionBounds(app: FastifyInstance): void {
  const { server } = app;
  /** The number of requests under way on each connection. */
  const connections = new Map<Socket, number>();
  const extras = new WeakSet<Socket>();
  let isClosing = false;
  server.maxConnections = MAX_CONNECTIONS + EXTRA_CONNECTIONS;
  // A client may close its sending half when its request is complete, and still wait for the response.
  Object.assign(server, { httpAllowHalfOpen: true });

  server.on('connection', (socket: Socket) => {
    if (connections.size >= MAX_CONNECTIONS) extras.add(socket);
    connections.set(socket, 0);
    socket.once('close', () => connections.delete(socket));
  });
  server.prependListener('request', ({ socket }: IncomingMessage, response: ServerResponse) => {
    const count = (change: 1 | -1) => {
      const requests = connections.get(socket);
      if (requests === undefined) return;
      connections.set(socket, requests + change);
      // It would be kept alive for a next request.
      if (isClosing && requests + change === 0) socket.end();
    };
    count(1);
    response.once('close', () => count(-1));
  });
  app.addHook('onRequest', async ({ raw }, reply) => {
    if (!extras.has(raw.socket)) return Promise.resolve();
    void reply.header('connection', 'close');
    throw new LoaderError('too_many_connections', `There are more than ${MAX_CONNECTIONS} connections: close some.`);
  });
  app.addHook('preClose', (done) => {
    isClosing = true;
    for (const [socket, requests] of connections) if (requests === 0) socket.destroy();
    done();
  });
}
