import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer, text } from 'node:stream/consumers';
import { afterEach, describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { UndiciHttpHandler } from '../../../src/cdn/undici-http-handler.ts';
import { Dispatchers } from '../../../src/net/dispatchers.ts';

const TIMEOUT_MS = 200;
/** A request for an object always has a range. */
const OBJECT: Record<string, string> = { range: 'bytes=0-' };

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
  return { protocol: 'http:', hostname: '127.0.0.1', port, method: 'GET', path: '/models/m.big', headers: OBJECT };
}

function makeHandler(connections = 2, timeoutMs = TIMEOUT_MS): UndiciHttpHandler {
  const dispatchers = new Dispatchers();
  closing.push(() => dispatchers.destroy());
  const dispatcher = dispatchers.create({ connectTimeoutMs: timeoutMs, connections });
  return new UndiciHttpHandler({ dispatcher, timeoutMs, clock: { note: () => undefined } });
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
    const query = 'empty=&key=a%20b%2F%21%27%28%29%2A&part=1&part=2&x-id=GetObject';
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

describe('an answer that is no object', () => {
  const XML_LIMIT = 1024 * 1024;

  for (const length of [XML_LIMIT, XML_LIMIT + 1]) {
    it(`may have 1 MiB, and not ${length} bytes`, async () => {
      const server = {
        ...(await startServer((_request, response) => response.end(Buffer.alloc(length)))),
        headers: {},
      };
      const handled = makeHandler().handle(server);
      if (length > XML_LIMIT) await assert.rejects(handled, { name: 'AnswerTooLongError' });
      else assert.equal((await buffer((await handled).response.body)).length, length);
    });
  }

  for (const [length, kept] of [
    [64 * 1024, 64 * 1024],
    [64 * 1024 + 1, 0],
  ] as const) {
    it(`and is an error of ${length} bytes keeps its status and ${kept} of them, also of a request for an object`, async () => {
      const server = await startServer((_request, response) =>
        response.writeHead(503).end(Buffer.alloc(length, '<Error>')),
      );
      const { response } = await makeHandler().handle(server);
      assert.deepEqual([response.statusCode, (await buffer(response.body)).length], [503, kept]);
    });
  }

  it('and is an error that never ends fails after the timeout', { timeout: 5000 }, async () => {
    const server = await startServer((_request, response) => {
      response.writeHead(500);
      const timer = setInterval(() => response.write('x'), TIMEOUT_MS / 10);
      response.on('close', () => clearInterval(timer));
    });
    await assert.rejects(makeHandler().handle(server), { name: 'TimeoutError', code: 'ETIMEDOUT' });
  });

  it('of 400 MB is cut off by the Loader, not read', { timeout: 10_000 }, async () => {
    let sent = 0;
    const server = await startServer((_request, response) => {
      response.writeHead(403, { 'content-length': 400_000_000 });
      const write = () => {
        while (!response.destroyed && sent < 400_000_000) {
          sent += 1_000_000;
          if (!response.write(Buffer.alloc(1_000_000))) return void response.once('drain', write);
        }
      };
      write();
    });
    assert.equal((await makeHandler().handle(server)).response.statusCode, 403);
    assert.ok(sent < 50_000_000, `${sent} bytes`);
  });

  it('whose headers are longer than 16 KiB is none', async () => {
    const server = await startServer((_request, response) => {
      response.writeHead(200, { 'x-long': 'x'.repeat(17 * 1024) }).end();
    });
    await assert.rejects(makeHandler().handle(server), { code: 'UND_ERR_HEADERS_OVERFLOW' });
  });
});

describe('the body of a request', () => {
  const BODY = randomBytes(600_001);

  it('comes whole, with its length and without Expect', async () => {
    let seen: Buffer | undefined;
    let headers: IncomingHttpHeaders = {};
    const server = await startServer((request, response) => {
      ({ headers } = request);
      void buffer(request).then((body) => {
        seen = body;
        response.end();
      });
    });
    const length = { 'content-length': String(BODY.length) };
    await makeHandler().handle({ ...server, method: 'PUT', headers: length, body: BODY });
    assert.ok(seen?.equals(BODY));
    assert.deepEqual(
      [headers['content-length'], headers['transfer-encoding'], headers.expect],
      [String(BODY.length), undefined, undefined],
    );
  });

  it('may be taken slowly, for much longer than the timeout', { timeout: 10_000 }, async () => {
    const body = Buffer.alloc(40_000_000);
    let received = 0;
    const server = await startServer((request, response) => {
      request.on('data', (chunk: Buffer) => {
        received += chunk.length;
        request.pause();
        setTimeout(() => request.resume(), 2);
      });
      request.on('end', () => response.end());
    });
    const startedAt = performance.now();
    await makeHandler(1, 600).handle({
      ...server,
      method: 'PUT',
      headers: { 'content-length': String(body.length) },
      body,
    });
    assert.equal(received, body.length);
    assert.ok(performance.now() - startedAt > 1200);
  });

  it('that is no longer taken fails, as one that the SDK sends again', { timeout: 5000 }, async () => {
    const body = Buffer.alloc(40_000_000);
    const server = await startServer((request) => void request.pause());
    const headers = { 'content-length': String(body.length) };
    await assert.rejects(makeHandler().handle({ ...server, method: 'PUT', headers, body }), {
      name: 'TimeoutError',
      code: 'ETIMEDOUT',
    });
  });

  it('that gets no answer fails in the same way', { timeout: 5000 }, async () => {
    const server = await startServer((request) => void request.resume());
    const headers = { 'content-length': '4' };
    await assert.rejects(makeHandler().handle({ ...server, method: 'PUT', headers, body: 'text' }), {
      name: 'TimeoutError',
      code: 'ETIMEDOUT',
    });
  });

  it('does not count as stalled while it waits for a free connection', { timeout: 5000 }, async () => {
    const server = await startServer((request, response) => {
      request.resume();
      setTimeout(() => response.end(), TIMEOUT_MS * 0.4); // The last one waits longer than a silence may last.
    });
    const handler = makeHandler(1);
    const put = { ...server, method: 'PUT', headers: { 'content-length': '4' }, body: 'text' };
    await Promise.all(Array.from({ length: 4 }, () => handler.handle(put)));
  });
});

describe('a connection', () => {
  it('is kept after a HEAD', async () => {
    const ports = new Set<number | undefined>();
    const server = await startServer((request, response) => {
      ports.add(request.socket.remotePort);
      response.writeHead(200, { 'content-length': 9 }).end();
    });
    const handler = makeHandler();
    const head = { ...server, method: 'HEAD', headers: {} };
    for (let count = 0; count < 3; count++) {
      await text((await handler.handle(head)).response.body);
    }
    assert.equal(ports.size, 1);
  });
});

describe('requests one after the other', () => {
  it('need one connection', async () => {
    const ports = new Set<number | undefined>();
    const server = await startServer((incoming, response) => {
      ports.add(incoming.socket.remotePort);
      incoming.resume().on('end', () => response.end());
    });
    const handler = makeHandler(8);
    for (let part = 0; part < 4; part++) {
      await handler.handle({ ...server, method: 'PUT', headers: {}, body: randomBytes(1000) });
    }
    assert.equal(ports.size, 1);
  });
});

describe('a destroyed handler', () => {
  it('leaves its connections to the next one', async () => {
    const ports = new Set<number | undefined>();
    const server = await startServer((request, response) => {
      ports.add(request.socket.remotePort);
      response.end('x');
    });
    const handler = makeHandler();
    await text((await handler.handle(server)).response.body);
    handler.destroy();
    await setImmediate(); // undici has the connection free a turn after the end of the body.
    await text((await handler.handle(server)).response.body);
    assert.equal(ports.size, 1);
  });
});
