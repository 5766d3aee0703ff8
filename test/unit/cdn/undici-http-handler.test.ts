import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, describe, it } from 'node:test';
import { UndiciHttpHandler } from '../../../src/cdn/undici-http-handler.ts';

const TIMEOUT_MS = 200;

const closing: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** A server with `listener`; the part of a signed request that names it. */
async function startServer(listener: RequestListener) {
  const server = createServer(listener);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  closing.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const { port } = server.address() as AddressInfo;
  return { protocol: 'http:', hostname: '127.0.0.1', port, method: 'GET', path: '/models/m.big', headers: {} };
}

function makeHandler(connections = 2): UndiciHttpHandler {
  const handler = new UndiciHttpHandler({ timeoutMs: TIMEOUT_MS, connections });
  closing.push(() => handler.destroy());
  return handler;
}

describe('a request of the SDK', () => {
  it('comes to the server as it was signed', async () => {
    let seen: unknown;
    const server = await startServer(({ method, url, headers }, response) => {
      seen = [method, url, headers['x-amz-date'], headers.range];
      response.end();
    });
    const request = {
      ...server,
      query: { 'x-id': 'GetObject', key: "a b/!'()*", part: ['1', '2'], empty: null },
      headers: { 'x-amz-date': '20240101T000000Z', range: 'bytes=0-9' },
    };
    await makeHandler().handle(request);
    // These escapes are those of the canonical request of the signature.
    const query = 'x-id=GetObject&key=a%20b%2F%21%27%28%29%2A&part=1&part=2&empty=';
    assert.deepEqual(seen, ['GET', `/models/m.big?${query}`, '20240101T000000Z', 'bytes=0-9']);
  });

  it('gets status, headers and body', async () => {
    const server = await startServer((_request, response) => {
      response.writeHead(206, { etag: '"one"', 'content-length': 4 }).end('abcd');
    });
    const { response } = await makeHandler().handle(server);
    assert.deepEqual(
      [response.statusCode, response.headers['etag'], response.headers['content-length']],
      [206, '"one"', '4'],
    );
    assert.equal(await text(response.body), 'abcd');
  });

  it('waits for a free connection', async () => {
    let present = 0;
    let most = 0;
    const server = await startServer((_request, response) => {
      most = Math.max(most, ++present);
      setTimeout(() => {
        present--;
        response.end('x');
      }, 20);
    });
    const handler = makeHandler(2);
    await Promise.all(Array.from({ length: 6 }, async () => await text((await handler.handle(server)).response.body)));
    assert.equal(most, 2);
  });

  it('ends with the reason of its signal', async () => {
    const server = await startServer(() => undefined);
    const abort = new AbortController();
    const handled = makeHandler().handle(server, { abortSignal: abort.signal });
    const reason = new Error('no longer wanted');
    abort.abort(reason);
    await assert.rejects(handled, reason);
  });
});

describe('a failure', () => {
  it('of the connection is one that the SDK sends again', async () => {
    const server = await startServer((request) => request.socket.destroy());
    await assert.rejects(makeHandler().handle(server), { name: 'TimeoutError', code: 'ECONNRESET' });
  });

  it('to answer in time is one that the SDK sends again', { timeout: 5000 }, async () => {
    const server = await startServer(() => undefined);
    await assert.rejects(makeHandler().handle(server), { name: 'TimeoutError', code: 'ETIMEDOUT' });
  });

  it('to connect keeps the code of the system', async () => {
    const server = await startServer(() => undefined);
    for (const close of closing.splice(0)) await close();
    await assert.rejects(makeHandler().handle(server), { code: 'ECONNREFUSED' });
  });
});

describe('a body', () => {
  it('that is destroyed before its end harms nothing', async () => {
    const server = await startServer((_request, response) => {
      response.writeHead(200, { 'content-length': 10 });
      response.write('abc');
    });
    const { response } = await makeHandler().handle(server);
    // Without a listener for errors, this would be an uncaught exception, and the test would fail for it.
    const closed = new Promise((resolve) => response.body.on('close', resolve));
    response.body.once('data', () => response.body.destroy());
    await closed;
  });

  it('that goes silent fails', { timeout: 5000 }, async () => {
    const server = await startServer((_request, response) => {
      response.writeHead(200, { 'content-length': 10 });
      response.write('abc');
    });
    const { response } = await makeHandler().handle(server);
    await assert.rejects(text(response.body), { code: 'UND_ERR_BODY_TIMEOUT' });
  });
});

describe('a destroyed handler', () => {
  it('has no connection left', async () => {
    const server = await startServer((_request, response) => response.end('x'));
    const handler = makeHandler();
    await text((await handler.handle(server)).response.body);
    handler.destroy();
    await assert.rejects(handler.handle(server), { code: 'UND_ERR_DESTROYED' });
  });
});
