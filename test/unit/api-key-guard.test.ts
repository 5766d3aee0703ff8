import assert from 'node:assert/strict';
import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import type { FastifyInstance } from 'fastify';
import { buildApp } from '../../src/app.ts';
import { loadConfig } from '../../src/config.ts';
import { createLogger } from '../../src/logger.ts';
import { createServices } from '../../src/services.ts';
import { registeredRoutes } from '../support/registered-routes.ts';

const KEYS = ['first-key', 'second-key'];
/** The routes that need no key, as the contract has them. */
const OPEN_ROUTES = new Set(['GET /health', 'HEAD /health']);
/** The contract's routes: the list below is read from the application, and must hold at least these. */
const KNOWN_ROUTES = [
  'GET /health',
  'GET /status',
  'POST /login',
  'POST /load/:filename',
  'POST /upload/:filename',
  'POST /unlock',
  'DELETE /unlock',
  'GET /unlock/status',
  'GET /unlock/events',
];

/** The whole application, over services that have an upstream where nobody listens. */
async function buildTestApp(apiKeys: readonly string[]): Promise<FastifyInstance> {
  const logger = createLogger({ level: 'silent' });
  const config = loadConfig({ RESOURCE_API_URL: 'http://127.0.0.1:9' });
  const app = await buildApp(createServices(config, logger), { ...config, logger, apiKeys });
  await app.listen({ host: '127.0.0.1', port: 0 });
  return app;
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

async function ask(app: FastifyInstance, method: string, path: string, authorization?: string): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const { port } = app.server.address() as AddressInfo;
  const headers = authorization === undefined ? {} : { authorization };
  const asked = request({ host: '127.0.0.1', port, method, path, headers, agent: false }, (response) => {
    let body = '';
    response.setEncoding('utf8').on('data', (text: string) => (body += text));
    // Events have no end while nothing happens.
    if (response.headers['content-type'] === 'text/event-stream') asked.destroy();
    response.on('close', () => {
      resolve({ status: response.statusCode ?? 0, headers: response.headers, body });
    });
  });
  asked.on('error', reject).end();
  return await promise;
}

/** `METHOD /path` of every route that is registered, read from the router. */
function listRoutes(app: FastifyInstance): string[] {
  return registeredRoutes(app).map(({ method, path }) => `${method} ${path}`);
}

describe('with API_KEY set', () => {
  const app = { get: (): FastifyInstance => assert.fail('the application is not built') };
  before(async () => {
    const built = await buildTestApp(KEYS);
    app.get = () => built;
  });
  after(async () => {
    await app.get().close();
  });

  it('every registered route answers 401 without a key, but the open ones and the 405 of wrong methods', async () => {
    const routes = listRoutes(app.get());
    for (const known of KNOWN_ROUTES) assert.ok(routes.includes(known), `the list of routes lacks ${known}`);
    const guarded: string[] = [];
    for (const route of routes) {
      const [method = '', url = ''] = route.split(' ');
      const answer = await ask(app.get(), method, url.replaceAll(/:\w+/g, 'x'));
      if (answer.status === 405) {
        // What only refuses: the method must not be one that the path offers.
        assert.ok(!String(answer.headers['allow']).split(', ').includes(method), route);
        assert.ok(!KNOWN_ROUTES.includes(route), route);
      } else if (OPEN_ROUTES.has(route)) {
        assert.equal(answer.status, 200, route);
      } else {
        assert.equal(answer.status, 401, route);
        assert.equal(answer.headers['www-authenticate'], 'Bearer', route);
        if (method !== 'HEAD') assert.equal(answer.body, '{"detail":"Forbidden","code":"forbidden"}', route);
        guarded.push(route);
      }
    }
    assert.deepEqual(
      guarded.sort(),
      [...KNOWN_ROUTES, 'HEAD /status', 'HEAD /unlock/status'].filter((route) => !OPEN_ROUTES.has(route)).sort(),
    );
  });

  it('every registered route lets a known key through to its own answer', async () => {
    for (const route of listRoutes(app.get())) {
      const [method = '', url = ''] = route.split(' ');
      const answer = await ask(app.get(), method, url.replaceAll(/:\w+/g, 'x'), `Bearer ${KEYS[0] ?? ''}`);
      assert.notEqual(answer.status, 401, route);
    }
  });

  for (const key of KEYS) {
    it(`takes each of several keys: ${key}`, async () => {
      assert.equal((await ask(app.get(), 'GET', '/status', `Bearer ${key}`)).status, 200);
      assert.equal((await ask(app.get(), 'GET', '/status', `bearer  ${key} `)).status, 200);
    });
  }

  for (const authorization of [
    'Bearer wrong-key',
    'Bearer first-keyx',
    'Bearer first-ke',
    'Bearer FIRST-KEY',
    'Bearer first-key,second-key',
    'Bearer first-key second-key',
    'Bearer',
    'Bearer ',
    '',
    'first-key',
    'Basic first-key',
    `Basic ${Buffer.from('first-key:').toString('base64')}`,
    'Token Bearer first-key',
  ]) {
    it(`refuses "${authorization}"`, async () => {
      assert.equal((await ask(app.get(), 'GET', '/status', authorization)).status, 401);
    });
  }

  it('takes no key from the query, and does not repeat it', async () => {
    for (const name of ['key', 'api_key', 'apiKey', 'access_token', 'authorization', 'token']) {
      const answer = await ask(app.get(), 'GET', `/status?${name}=first-key`);
      assert.equal(answer.status, 401);
      assert.doesNotMatch(answer.body, /first-key/);
    }
  });

  it('answers an unknown path with 404, key or not', async () => {
    assert.equal((await ask(app.get(), 'GET', '/unknown')).status, 404);
    assert.equal((await ask(app.get(), 'GET', '/unknown', 'Bearer first-key')).status, 404);
  });
});

describe('without API_KEY', () => {
  it('the routes are open, as the original’s are', async () => {
    const app = await buildTestApp([]);
    try {
      for (const route of listRoutes(app)) {
        const [method = '', url = ''] = route.split(' ');
        assert.notEqual((await ask(app, method, url.replaceAll(/:\w+/g, 'x'))).status, 401, route);
      }
      assert.equal(
        (await ask(app, 'GET', '/status')).body,
        '{"status":"healthy","authenticated":false,"modelCacheDir":"models"}',
      );
    } finally {
      await app.close();
    }
  });
});
