import assert from 'node:assert/strict';
import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, describe, it } from 'node:test';
import type { FastifyInstance } from 'fastify';
import { registeredRoutes } from '../../support/registered-routes.ts';
import { makeTestApp } from '../../support/test-app.ts';

const KEYS = ['first-key', 'second-key'];
const BEARER = { authorization: 'Bearer first-key' };
/** Every route of the contract, and who may use it. `HEAD` goes with `GET`, where that is not a stream. */
const ACCESS: Readonly<Record<string, 'open' | 'guarded' | 'keyed'>> = {
  'GET /health': 'open',
  'HEAD /health': 'open',
  'GET /ready': 'open',
  'HEAD /ready': 'open',
  'GET /metrics': 'open',
  'HEAD /metrics': 'open',
  'GET /openapi.json': 'open',
  'HEAD /openapi.json': 'open',
  'GET /docs': 'open',
  'HEAD /docs': 'open',
  'GET /docs/': 'open',
  'HEAD /docs/': 'open',
  'GET /docs/start.js': 'open',
  'HEAD /docs/start.js': 'open',
  'GET /docs/swagger-ui-bundle.js': 'open',
  'HEAD /docs/swagger-ui-bundle.js': 'open',
  'GET /docs/swagger-ui.css': 'open',
  'HEAD /docs/swagger-ui.css': 'open',
  'GET /status': 'guarded',
  'HEAD /status': 'guarded',
  'POST /login': 'guarded',
  'POST /load/:filename': 'guarded',
  'GET /resources': 'guarded',
  'HEAD /resources': 'guarded',
  'GET /resources/*': 'guarded',
  'HEAD /resources/*': 'guarded',
  'POST /upload/:filename': 'guarded',
  'POST /unlock': 'guarded',
  'DELETE /unlock': 'guarded',
  'GET /unlock/status': 'guarded',
  'HEAD /unlock/status': 'guarded',
  'GET /unlock/events': 'guarded',
  'POST /': 'keyed',
  'GET /tasks': 'keyed',
  'HEAD /tasks': 'keyed',
  'GET /tasks/history': 'keyed',
  'HEAD /tasks/history': 'keyed',
  'GET /tasks/:uid': 'keyed',
  'HEAD /tasks/:uid': 'keyed',
  'DELETE /tasks/:uid': 'keyed',
  'POST /tasks/:uid/retry': 'keyed',
  'GET /tasks/:uid/logs': 'keyed',
  'HEAD /tasks/:uid/logs': 'keyed',
  'GET /tasks/:uid/events': 'keyed',
  'POST /schedules': 'keyed',
  'GET /schedules': 'keyed',
  'HEAD /schedules': 'keyed',
  'PATCH /schedules/:id': 'keyed',
  'POST /schedules/:id/run': 'keyed',
  'DELETE /schedules/:id': 'keyed',
};
/** Good bodies, where a route looks at its body before anything else. */
const BODIES: Readonly<Record<string, object>> = {
  'POST /': { provider: 'verify' },
  'PATCH /schedules/:id': { paused: true },
  'POST /schedules': { provider: 'verify', cron: '0 0 * * *' },
};

/** An app that listens; its database of tasks is not open. */
async function startTestApp(apiKeys: readonly string[]): Promise<FastifyInstance> {
  const { app, misfits } = await makeTestApp({ apiKeys });
  allMisfits.push(misfits);
  await app.listen({ host: '127.0.0.1', port: 0 });
  return app;
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

interface Question {
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON. */
  readonly body?: object;
}

async function ask(app: FastifyInstance, method: string, path: string, question: Question = {}): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const { port } = app.server.address() as AddressInfo;
  const body = question.body === undefined ? undefined : JSON.stringify(question.body);
  const headers = {
    ...question.headers,
    ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
  };
  const asked = request({ host: '127.0.0.1', port, method, path, headers, agent: false }, (response) => {
    let text = '';
    response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    // Events have no end while nothing happens.
    if (response.headers['content-type'] === 'text/event-stream') asked.destroy();
    response.on('close', () => {
      resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text });
    });
  });
  asked.on('error', reject).end(body);
  return await promise;
}

/** A route that is registered, read from the router. */
interface Route {
  readonly name: string;
  readonly method: string;
  /** A path that it serves. `param` is in the place of its parameters. */
  readonly path: (param?: string) => string;
}

function listRoutes(app: FastifyInstance): Route[] {
  return registeredRoutes(app).map(({ method, path }) => ({
    name: `${method} ${path}`,
    method,
    path: (param = 'x') => path.replaceAll(/:\w+|\*/g, param),
  }));
}

/** The routes that do something: a path is also registered for the methods that it refuses. */
async function listServingRoutes(app: FastifyInstance): Promise<Route[]> {
  const serving: Route[] = [];
  for (const route of listRoutes(app)) {
    const answer = await ask(app, route.method, route.path());
    if (answer.status !== 405) serving.push(route);
    else assert.ok(!String(answer.headers['allow']).split(', ').includes(route.method), route.name);
  }
  return serving;
}

const allMisfits: (readonly string[])[] = [];
const guarded = await startTestApp(KEYS);
const unguarded = await startTestApp([]);
const ROUTES = await listServingRoutes(guarded);

after(async () => {
  await Promise.all([guarded.close(), unguarded.close()]);
  assert.deepEqual(allMisfits.flat(), []);
});

function assertRefused(answer: Answer, { name, method }: Route, what: string): void {
  assert.equal(answer.status, 401, `${name} with ${what}`);
  assert.equal(answer.headers['www-authenticate'], 'Bearer', `${name} with ${what}`);
  if (method !== 'HEAD')
    assert.match(answer.body, /^\{"detail":"Forbidden: [^"]+","code":"forbidden"\}$/, `${name} with ${what}`);
}

/** Ways to show a key that are none. */
async function assertRefusesAllButABearer(app: FastifyInstance, route: Route): Promise<void> {
  const { method, name } = route;
  const [key = ''] = KEYS;
  const body = BODIES[name];
  const questions: Readonly<Record<string, Question>> = {
    'no key': {},
    'no key, and a good body': body === undefined ? {} : { body },
    'a wrong key': { headers: { authorization: 'Bearer wrong-key' } },
    'a key that is no Bearer': { headers: { authorization: key } },
    'a key of Basic': { headers: { authorization: `Basic ${Buffer.from(`x:${key}`).toString('base64')}` } },
    'an empty key': { headers: { authorization: 'Bearer ' } },
    'a key in X-API-Key': { headers: { 'x-api-key': key, 'api-key': key, 'x-authorization': `Bearer ${key}` } },
    'a key for a proxy': { headers: { 'proxy-authorization': `Bearer ${key}` } },
    'a key in a cookie': { headers: { cookie: `key=${key}; api_key=${key}; authorization=Bearer%20${key}` } },
  };
  for (const [what, question] of Object.entries(questions)) {
    assertRefused(await ask(app, method, route.path(), question), route, what);
  }
  for (const parameter of ['key', 'api_key', 'apiKey', 'access_token', 'authorization', 'token']) {
    const answer = await ask(app, method, `${route.path()}?${parameter}=${key}`);
    assertRefused(answer, route, `a key in the query as ${parameter}`);
  }
  assertRefused(await ask(app, method, route.path(key)), route, 'a key in the path');
  if (method === 'POST') {
    const withKey = { ...body, key, api_key: key, token: key, authorization: `Bearer ${key}` };
    assertRefused(await ask(app, method, route.path(), { body: withKey }), route, 'a key in the body');
  }
}

describe('every registered route', () => {
  it('has its access told here, and every one told here is registered', () => {
    assert.deepEqual(ROUTES.map(({ name }) => name).sort(), Object.keys(ACCESS).sort());
  });

  it('that is open is for health checks or Prometheus, or shows the document of the API', () => {
    const open = Object.keys(ACCESS).filter((name) => ACCESS[name] === 'open');
    for (const name of open) assert.match(name, /^(GET|HEAD) \/(health|ready|metrics|openapi\.json|docs(\/.*)?)$/);
  });
});

describe('a refusal', () => {
  const detailOf = async (app: FastifyInstance, headers: Record<string, string>) => {
    return (JSON.parse((await ask(app, 'GET', '/tasks', { headers })).body) as { detail: string }).detail;
  };

  it('tells a missing key, a wrong one, and a Loader that knows none apart', async () => {
    const wrong = { authorization: 'Bearer wrong-key' };
    assert.match(
      await detailOf(guarded, {}),
      /^Forbidden: send the header Authorization: Bearer with a key of API_KEY/,
    );
    assert.match(await detailOf(guarded, wrong), /^Forbidden: the key in the header Authorization is none of API_KEY/);
    for (const headers of [{}, wrong]) {
      assert.match(await detailOf(unguarded, headers), /^Forbidden: .* the Loader knows none: set API_KEY_FILE/);
    }
  });
});

describe('with API_KEY set', () => {
  for (const route of ROUTES) {
    const access = ACCESS[route.name];
    if (access === 'open') {
      it(`no key is asked for: ${route.name}`, async () => {
        for (const headers of [{}, BEARER, { authorization: 'Bearer wrong-key' }]) {
          const { status } = await ask(guarded, route.method, route.path(), { headers });
          assert.equal(status, route.path() === '/ready' ? 503 : 200); // No user is logged in.
        }
      });
      continue;
    }

    it(`nothing but a known Bearer is let through: ${route.name}`, async () => {
      await assertRefusesAllButABearer(guarded, route);
    });

    it(`a known key is let through to the route's own answer: ${route.name}`, async () => {
      const body = BODIES[route.name];
      for (const key of KEYS) {
        const headers = { authorization: `Bearer ${key}` };
        const question = body === undefined ? { headers } : { headers, body };
        const answer = await ask(guarded, route.method, route.path(), question);
        assert.notEqual(answer.status, 401);
        if (access !== 'keyed') continue;
        assert.equal(answer.status, 503);
        if (route.method !== 'HEAD') assert.match(answer.body, /"code":"task_store_unavailable"/);
      }
    });
  }

  for (const key of KEYS) {
    it(`takes each of several keys: ${key}`, async () => {
      assert.equal((await ask(guarded, 'GET', '/status', { headers: { authorization: `Bearer ${key}` } })).status, 200);
      assert.equal(
        (await ask(guarded, 'GET', '/status', { headers: { authorization: `bearer  ${key} ` } })).status,
        200,
      );
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
      assert.equal((await ask(guarded, 'GET', '/status', { headers: { authorization } })).status, 401);
    });
  }

  it('takes no key from the query, and does not repeat it', async () => {
    for (const name of ['key', 'api_key', 'apiKey', 'access_token', 'authorization', 'token']) {
      const answer = await ask(guarded, 'GET', `/status?${name}=first-key`);
      assert.equal(answer.status, 401);
      assert.doesNotMatch(answer.body, /first-key/);
    }
  });

  it('answers an unknown path with 404, key or not', async () => {
    assert.equal((await ask(guarded, 'GET', '/unknown')).status, 404);
    assert.equal((await ask(guarded, 'GET', '/unknown', { headers: BEARER })).status, 404);
  });
});

describe('without API_KEY', () => {
  for (const route of ROUTES) {
    if (ACCESS[route.name] === 'keyed') {
      it(`nobody is let through: ${route.name}`, async () => {
        await assertRefusesAllButABearer(unguarded, route);
        for (const authorization of ['Bearer first-key', 'Bearer undefined', 'Bearer null', 'Bearer ,', 'Bearer " "']) {
          const answer = await ask(unguarded, route.method, route.path(), { headers: { authorization } });
          assertRefused(answer, route, authorization);
        }
      });
      continue;
    }

    it(`the route is open, as the original’s are: ${route.name}`, async () => {
      for (const headers of [{}, BEARER]) {
        assert.notEqual((await ask(unguarded, route.method, route.path(), { headers })).status, 401);
      }
    });
  }

  it('has the routes that it has with one', async () => {
    assert.deepEqual(
      (await listServingRoutes(unguarded)).map(({ name }) => name),
      ROUTES.map(({ name }) => name),
    );
  });

  it('the routes answer as they do with one', async () => {
    const { body } = await ask(unguarded, 'GET', '/status');
    // The original's three fields are the first.
    assert.match(body, /^\{"status":"healthy","authenticated":false,"modelCacheDir":"models","version":/);
  });
});
