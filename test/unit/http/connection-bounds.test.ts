import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fastify, type FastifyInstance } from 'fastify';
import { RawConnection } from '../../../lab/faults/raw-http.ts';
import { eventually } from '../../../lab/waiting.ts';
import { registerRequestLog } from '../../../src/http/request-log.ts';
import { registerErrorHandler } from '../../../src/http/errors/error-handler.ts';
import { registerConnectionBounds } from '../../../src/http/guards/connection-bounds.ts';

const BODY = 'x'.repeat(300_000);

describe('the connections of an app', () => {
  let app: FastifyInstance;
  let port = 0;
  let connections: RawConnection[] = [];

  beforeEach(async () => {
    app = fastify({ forceCloseConnections: 'idle' });
    registerErrorHandler(app);
    registerRequestLog(app, () => undefined);
    registerConnectionBounds(app);
    app.get('/quick', () => ({}));
    app.get('/slow', async () => {
      await sleep(300);
      return { body: BODY };
    });
    await app.listen({ host: '127.0.0.1', port: 0 });
    port = (app.server.address() as AddressInfo).port;
    connections = [];
  });

  afterEach(async () => {
    for (const connection of connections) connection.close();
    await app.close();
  });

  async function open(text = ''): Promise<RawConnection> {
    const connection = await RawConnection.open(port);
    connections.push(connection);
    if (text !== '') await connection.send(text);
    return connection;
  }

  const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: loader\r\n\r\n`;

  it('are 1,000: requests on some more get 503, those beyond these are closed, and earlier ones go on', async () => {
    const first = await open();
    for (let count = 1; count < 1_000; count++) await open();
    const refused = await open(get('/quick'));
    const answer = await refused.answer();
    assert.deepEqual([answer.status, answer.body.code], [503, 'too_many_connections']);
    await eventually(() => Promise.resolve(refused.isClosed));
    await first.send(get('/quick'));
    assert.equal((await first.answer()).status, 200);

    for (let count = 0; count < 100; count++) await open();
    const beyond = await open(get('/quick'));
    await eventually(() => Promise.resolve(beyond.isClosed));
    assert.equal(beyond.receivedLength, 0);
  });

  it('give their places back', async () => {
    for (let round = 0; round < 2; round++) {
      for (let count = 0; count < 1_000; count++) await open();
      for (const connection of connections.splice(0)) connection.close();
      await eventually(async () => {
        const connection = await open(get('/quick'));
        const { status } = await connection.answer();
        connection.close();
        return status === 200;
      });
    }
  });

  for (const text of ['', 'GET /qu', 'GET /quick HTTP/1.1\r\nHost: lo', get('/quick')]) {
    it(`are closed at the stop, where no request is under way: ${JSON.stringify(text)}`, async () => {
      const connection = await open(text);
      await sleep(50);
      const startedAt = performance.now();
      await app.close();
      await eventually(() => Promise.resolve(connection.isClosed));
      assert.ok(performance.now() - startedAt < 1_000);
    });
  }

  it('stay open at the stop until the response under way has gone', async () => {
    const connection = await open(get('/slow'));
    await sleep(50);
    const startedAt = performance.now();
    const closed = app.close();
    assert.equal((await connection.answer()).status, 200);
    await closed;
    assert.ok(performance.now() - startedAt < 1_000);
  });

  it('get their response, though the client has closed its sending half', async () => {
    const connection = await open(get('/slow'));
    connection.socket.end();
    const { status, body } = await connection.answer();
    assert.deepEqual([status, (body as { body?: string }).body?.length], [200, BODY.length]);
    await eventually(() => Promise.resolve(connection.isClosed));
  });
});
