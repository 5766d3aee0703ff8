import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createHttpServer, type RequestListener, type Server } from 'node:http';
import { createServer as createTcpServer, Socket, type AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, describe, it } from 'node:test';
import type { Dispatcher } from 'undici';
import { CertificateAuthority, type CertificateOptions } from '../../../lab/links/certificate-authority.ts';
import { TlsFront, type TlsFrontOptions } from '../../../lab/links/tls-front.ts';
import { Dispatchers, type DispatchersOptions } from '../../../src/net/dispatchers.ts';
import { NetworkFault } from '../../../src/net/network-fault.ts';
import { parseProxyServer, ProxyRules } from '../../../src/net/proxy-rules.ts';
import { TestProxy } from '../../support/test-proxy.ts';

const authority = new CertificateAuthority();
const DAY_MS = 24 * 3600_000;
const closing: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const HELLO: RequestListener = (request, response) => void response.end(`${request.method} ${request.url}`);

/** A plain HTTP server; its port. */
async function startServer(listener = HELLO): Promise<number> {
  const server: Server = createHttpServer(listener);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  closing.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

/** The same behind TLS. */
async function startTls(certificate: CertificateOptions = {}, options: Partial<TlsFrontOptions> = {}, by = authority) {
  const target = `http://127.0.0.1:${await startServer()}`;
  const front = await TlsFront.start({ target, ...by.issue(certificate), ...options });
  closing.push(() => front.stop());
  return front;
}

function create(options: DispatchersOptions = {}, connections = 4, connectTimeoutMs = 5000): Dispatcher {
  const dispatchers = new Dispatchers({ caCertificates: [authority.certificate], ...options });
  closing.push(() => dispatchers.destroy());
  return dispatchers.create({ connectTimeoutMs, connections });
}

async function get(dispatcher: Dispatcher, url: string): Promise<string> {
  const { origin, pathname } = new URL(url);
  const { body } = await dispatcher.request({ origin, path: pathname, method: 'GET' });
  return await text(body);
}

async function faultOf(calling: Promise<unknown>): Promise<NetworkFault> {
  const error = await calling.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof NetworkFault, String(error));
  return error;
}

/** All names lead to loopback. */
const onLoopback = {
  lookup: () => Promise.resolve([{ address: '127.0.0.1', family: 4 }]),
  connect: (_address: unknown, port: number) => new Socket().connect(port, '127.0.0.1'),
};

describe('a connection over TLS', () => {
  it('takes HTTP/1.1 over several connections, even where HTTP/2 is offered', async () => {
    const handshakes: boolean[] = [];
    const front = await startTls({}, { offersHttp2: true, onHandshake: ({ isHttp2 }) => handshakes.push(isHttp2) });
    const dispatcher = create();
    await Promise.all([1, 2, 3, 4].map(() => get(dispatcher, `${front.url}/x`)));
    assert.deepEqual(handshakes, [false, false, false, false]);
  });

  it('is kept for later calls, and a new one resumes the session of an earlier one', async () => {
    const handshakes: boolean[] = [];
    const front = await startTls({}, { onHandshake: ({ isResumed }) => handshakes.push(isResumed) });
    const dispatchers = new Dispatchers({ caCertificates: [authority.certificate] });
    closing.push(() => dispatchers.destroy());
    const one = dispatchers.create({ connectTimeoutMs: 5000, connections: 1 });
    for (let i = 0; i < 3; i++) assert.equal(await get(one, `${front.url}/x`), 'GET /x');
    assert.deepEqual(handshakes, [false]);
    const other = dispatchers.create({ connectTimeoutMs: 5000, connections: 1 });
    await get(other, `${front.url}/x`);
    assert.deepEqual(handshakes, [false, true]);
  });

  const past = { validFrom: new Date(Date.now() - 9 * DAY_MS), validUntil: new Date(Date.now() - DAY_MS) };
  const future = { validFrom: new Date(Date.now() + DAY_MS) };
  for (const [what, certificate, kind, message] of [
    ['has expired', past, 'certificate-date', /has expired, or the clock of this device is wrong, which says 20\d\d-/],
    ['is not valid yet', future, 'certificate-date', /is not valid yet, or the clock of this device is wrong/],
    ['is for another host', { hosts: ['other.example.com'] }, 'other-host', /for other hosts.*other\.example\.com/],
  ] as const) {
    it(`fails with a fault of its own when the certificate ${what}`, async () => {
      const front = await startTls(certificate);
      const fault = await faultOf(get(create(), front.url));
      assert.deepEqual([fault.kind, fault.host], [kind, `127.0.0.1:${front.port}`]);
      assert.match(fault.message, message);
    });
  }

  it('fails with a fault of its own when the CA is not known, and trusts the public ones beside those that are added', async () => {
    const front = await startTls({}, {}, new CertificateAuthority('Nobody knows it'));
    assert.equal((await faultOf(get(create(), front.url))).kind, 'unknown-ca');
    assert.equal((await faultOf(get(create({ caCertificates: [] }), front.url))).kind, 'unknown-ca');
  });

  it('fails with a fault of its own when the server does not speak TLS', async () => {
    const port = await startServer();
    assert.equal((await faultOf(get(create(), `https://127.0.0.1:${port}`))).kind, 'no-tls');
  });

  it('fails when the server breaks the handshake off, or never answers it', { timeout: 10_000 }, async () => {
    const server = createTcpServer((socket) =>
      socket.once('data', () => socket.destroy()).on('error', () => undefined),
    );
    const silent = createTcpServer((socket) => socket.on('error', () => undefined).resume());
    for (const one of [server, silent]) {
      await once(one.listen(0, '127.0.0.1'), 'listening');
      closing.push(() => one.close());
    }
    const urlOf = (one: typeof server) => `https://127.0.0.1:${(one.address() as AddressInfo).port}`;
    assert.equal((await faultOf(get(create(), urlOf(server)))).kind, 'unreachable');
    const late = await faultOf(get(create({}, 1, 100), urlOf(silent)));
    assert.deepEqual([late.kind, late.message], ['late', 'there was no connection within 100 ms']);
  });
});

describe('a host that gives no connection', () => {
  it('is told apart: no such name, nothing listens, no HTTP', async () => {
    const lookup = () => Promise.reject(Object.assign(new Error('getaddrinfo'), { code: 'ENOTFOUND' }));
    const unknown = await faultOf(get(create({ parts: { ...onLoopback, lookup } }), 'https://cdn.example.com'));
    assert.deepEqual([unknown.kind, unknown.host], ['unknown-name', 'cdn.example.com:443']);
    assert.match(unknown.message, /ENOTFOUND/);
    const refused = await faultOf(get(create(), 'http://127.0.0.1:1'));
    assert.deepEqual([refused.kind, refused.host, refused.code], ['unreachable', '127.0.0.1:1', 'ECONNREFUSED']);
  });

  it('fails all calls that wait for it', async () => {
    const dispatcher = create({}, 1);
    const faults = await Promise.all([1, 2, 3].map(() => faultOf(get(dispatcher, 'http://127.0.0.1:1'))));
    assert.deepEqual(
      faults.map(({ kind }) => kind),
      ['unreachable', 'unreachable', 'unreachable'],
    );
  });
});

describe('a proxy', () => {
  async function startProxy(userInfo = '') {
    const proxy = await TestProxy.start();
    closing.push(() => proxy[Symbol.asyncDispose]());
    const server = parseProxyServer(proxy.url.replace('//', `//${userInfo}`));
    return { proxy, proxies: new ProxyRules({ http: server, https: server, exceptions: ['direct.example.com'] }) };
  }

  it('gets a tunnel for TLS, and knows who asks', async () => {
    const { proxy, proxies } = await startProxy('me:secret@');
    const front = await startTls({ hosts: ['cdn.example.com'] });
    proxy.port = front.port;
    const dispatcher = create({ proxies }, 1);
    assert.equal(await get(dispatcher, 'https://cdn.example.com/a'), 'GET /a');
    assert.equal(await get(dispatcher, 'https://cdn.example.com/b'), 'GET /b');
    assert.deepEqual(proxy.asked, ['CONNECT cdn.example.com:443']);
    assert.deepEqual(proxy.authorizations, [`Basic ${Buffer.from('me:secret').toString('base64')}`]);
  });

  it('gets requests of plain HTTP whole, and the host does not learn the password', async () => {
    const { proxy, proxies } = await startProxy('me:secret@');
    let seen: unknown;
    proxy.port = await startServer((request, response) => {
      seen = [request.headers.host, request.url];
      response.end('x');
    });
    assert.equal(await get(create({ proxies }), 'http://cdn.example.com:8080/a'), 'x');
    assert.deepEqual(proxy.asked, ['GET http://cdn.example.com:8080/a']);
    assert.deepEqual(proxy.authorizations, [`Basic ${Buffer.from('me:secret').toString('base64')}`]);
    assert.deepEqual(seen, ['cdn.example.com:8080', '/a']);
  });

  it('is left out for this machine itself and for exceptions', async () => {
    const { proxy, proxies } = await startProxy();
    const [plain, front] = [await startServer(), await startTls({ hosts: ['127.0.0.1', 'direct.example.com'] })];
    const dispatcher = create({ proxies, parts: onLoopback });
    await get(dispatcher, `http://127.0.0.1:${plain}/`);
    await get(dispatcher, `${front.url}/`);
    await get(dispatcher, `https://direct.example.com:${front.port}/`);
    assert.deepEqual(proxy.asked, []);
  });

  for (const [what, refusal, kind] of [
    ['refuses', { status: 403, body: '<html>blocked</html>' }, 'proxy-refused'],
    ['asks for a password', { status: 407 }, 'proxy-password'],
    ['answers a page in place of the host', { status: 200, body: '<html>Welcome</html>' }, 'proxy-refused'],
  ] as const) {
    it(`that ${what} is told, with its host`, async () => {
      const { proxy, proxies } = await startProxy('me:secret@');
      proxy.refusal = refusal;
      const fault = await faultOf(get(create({ proxies }), 'https://cdn.example.com/a'));
      assert.deepEqual([fault.kind, fault.host], [kind, proxy.host]);
      assert.doesNotMatch(`${fault.message} ${String(fault.cause)}`, /secret|html/);
    });
  }

  it('that asks for a password is told for plain HTTP too', async () => {
    const { proxy, proxies } = await startProxy();
    proxy.refusal = { status: 407 };
    const fault = await faultOf(get(create({ proxies }), 'http://cdn.example.com/a'));
    assert.deepEqual([fault.kind, fault.host], ['proxy-password', proxy.host]);
  });

  it('that is not there, or is no proxy, is told with its host', async () => {
    const gone = parseProxyServer('http://127.0.0.1:1');
    const proxies = new ProxyRules({ http: gone, https: gone, exceptions: [] });
    for (const url of ['https://cdn.example.com/', 'http://cdn.example.com/']) {
      const fault = await faultOf(get(create({ proxies }), url));
      assert.deepEqual([fault.kind, fault.host], ['proxy-unreachable', '127.0.0.1:1'], url);
    }
    const server = createTcpServer((socket) => socket.on('error', () => undefined).end('SSH-2.0-x\r\n'));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    closing.push(() => server.close());
    const other = parseProxyServer(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    const rules = new ProxyRules({ http: undefined, https: other, exceptions: [] });
    assert.equal((await faultOf(get(create({ proxies: rules }), 'https://cdn.example.com/'))).kind, 'proxy-refused');
  });

  it('may itself be behind TLS', async () => {
    const { proxy } = await startProxy();
    const proxyFront = await TlsFront.start({ target: proxy.url, ...authority.issue() });
    closing.push(() => proxyFront.stop());
    const front = await startTls({ hosts: ['cdn.example.com'] });
    const server = parseProxyServer(proxyFront.url);
    const dispatcher = create({ proxies: new ProxyRules({ http: server, https: server, exceptions: [] }) });
    proxy.port = front.port;
    assert.equal(await get(dispatcher, 'https://cdn.example.com/a'), 'GET /a');
    proxy.port = await startServer();
    assert.equal(await get(dispatcher, 'http://cdn.example.com/b'), 'GET /b');
  });
});
