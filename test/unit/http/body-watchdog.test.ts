import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fastify, type FastifyInstance } from 'fastify';
import { RawConnection } from '../../../lab/faults/raw-http.ts';
import { eventually } from '../../../lab/waiting.ts';
import { registerBodyWatchdog } from '../../../src/http/guards/body-watchdog.ts';

const TIMEOUT_MS = 200;

describe('a connection', () => {
  let app: FastifyInstance;
  let open = 0;
  before(async () => {
    app = fastify({ keepAliveTimeout: 700 });
    registerBodyWatchdog(app, TIMEOUT_MS);
    app.get('/large', () => 'x'.repeat(32 * 1024 * 1024));
    app.post('/', (request) => request.body);
    app.post('/refused', { onRequest: async (_request, reply) => reply.code(403).send({}) }, () => 'never');
    app.get('/late', async () => {
      await sleep(3 * TIMEOUT_MS);
      return {};
    });
    app.server.on('connection', (socket) => {
      open++;
      socket.once('close', () => open--);
    });
    await app.listen({ host: '127.0.0.1', port: 0 });
  });
  after(() => app.close());

  const connectTo = () => RawConnection.open((app.server.address() as AddressInfo).port);

  it('whose client reads nothing of a response is closed', async () => {
    const connection = await connectTo();
    connection.socket.pause();
    await connection.send('GET /large HTTP/1.1\r\nHost: loader\r\n\r\n');
    await eventually(() => Promise.resolve(open === 1));
    await eventually(() => Promise.resolve(open === 0));
    connection.close();
  });

  it('whose client sends nothing more of its body is closed', async () => {
    const connection = await connectTo();
    await connection.send(
      'POST / HTTP/1.1\r\nHost: loader\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"a"',
    );
    await eventually(() => Promise.resolve(connection.isClosed));
    assert.equal(open, 0);
  });

  it('whose client waits for a response stays open for longer', async () => {
    const connection = await connectTo();
    await connection.send('GET /late HTTP/1.1\r\nHost: loader\r\n\r\n');
    assert.equal((await connection.answer()).status, 200);
    connection.close();
  });

  it('whose request was refused before its body is closed like every other that no request follows', async () => {
    const connection = await connectTo();
    await connection.send('POST /refused HTTP/1.1\r\nHost: loader\r\nContent-Length: 4\r\n\r\n');
    assert.equal((await connection.answer()).status, 403);
    await connection.send('body');
    await eventually(() => connection.isClosed);
  });

  it('that waits for its next request stays open for longer', async () => {
    const connection = await connectTo();
    const request = 'POST / HTTP/1.1\r\nHost: loader\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}';
    await connection.send(request);
    assert.equal((await connection.answer()).status, 200);
    await sleep(3 * TIMEOUT_MS);
    assert.equal(connection.isClosed, false);
    connection.close();
  });
});
