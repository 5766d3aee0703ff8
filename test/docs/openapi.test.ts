import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Ajv2020, type AnySchemaObject } from 'ajv/dist/2020.js';
import type { FastifyInstance } from 'fastify';
import { LoaderError } from '../../src/errors.ts';
import type { AppServices } from '../../src/http/app.ts';
import type { Services } from '../../src/services.ts';
import { registeredRoutes } from '../support/registered-routes.ts';
import { validateResponses } from '../support/response-validation.ts';
import { makeTestApp } from '../support/test-app.ts';
import { readProjectFile, ROOT } from './documents.ts';
import { makeOpenApiText, OPENAPI_FILE } from './openapi-document.ts';

/** GET /openapi.json, GET /docs, and that the app does what the document says. */

interface Parameter {
  readonly name: string;
  readonly in: 'path' | 'query' | 'header';
  readonly schema: AnySchemaObject;
  readonly example?: string;
}

interface Content {
  readonly schema: AnySchemaObject;
  readonly example?: Readonly<Record<string, unknown>>;
}

interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly tags: readonly string[];
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly content: Readonly<Record<string, Content>> };
  readonly responses: Readonly<Record<string, { readonly content?: Readonly<Record<string, Content>> }>>;
}

interface OpenApi {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: object;
}

const KEY = 'the-key';
const MODEL = Buffer.from('the model');
const STREAMS = ['loadResource', 'getResource', 'watchTask', 'watchUnlock'];
const DOCUMENT = JSON.parse(readProjectFile(OPENAPI_FILE)) as OpenApi;
const OPERATIONS = Object.entries(DOCUMENT.paths).flatMap(([route, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ route, method: method.toUpperCase(), operation })),
);

/** An ApiClient whose calls all succeed at once. */
const API_CLIENT: AppServices['apiClient'] = {
  status: { isAuthenticated: true, clockOffsetMs: -120 },
  login: () => Promise.resolve(),
  load: ({ name }) => {
    if (name === 'unknown') return Promise.reject(new LoaderError('resource_not_in_api', 'There is none.'));
    return Promise.resolve({
      length: MODEL.length,
      source: 'cache',
      identity: 'ab'.repeat(32),
      manifest: undefined,
      read: chunks,
      [Symbol.asyncDispose]: () => Promise.resolve(),
    });
  },
  cachedResources: () =>
    Promise.resolve({
      resources: [
        { folder: 'models', name: 'm', bytes: 5, storedBytes: 32, revision: 7, loadedAtMs: 0 },
        { folder: 'models', name: 'n', bytes: undefined, storedBytes: 32, revision: undefined, loadedAtMs: 0 },
      ],
      nextCursor: 'models/n',
    }),
  upload: async (_name, items) => {
    for await (const item of items) if (item.kind === 'data') await Array.fromAsync(item.chunks);
  },
  unlock: () => Promise.resolve('authenticating'),
  cancelUnlock: () => Promise.resolve('idle'),
  unlockStatus: {
    state: 'loading_images',
    error: null,
    code: null,
    progress: {
      bytesDone: 1,
      bytesTotal: 2,
      imagesDone: 0,
      imagesTotal: 1,
      currentImages: ['detector:1'],
      percent: 50,
      bytesPerSecond: 1,
      secondsLeft: null,
    },
  },
  watchUnlock: () => noStatuses(),
};

let folder = '';
let services: Services;
let app: FastifyInstance;
let url = '';
let misfits: readonly string[] = [];

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-openapi-'));
  const variables = { STATE_DIR: folder, MODEL_CACHE_DIR: folder };
  ({ app, services, misfits } = await makeTestApp({
    variables,
    apiKeys: [KEY],
    apiClient: API_CLIENT,
    readiness: { problems: () => Promise.resolve([]) },
  }));
  await services.tasks.start();
  url = await app.listen({ host: '127.0.0.1', port: 0 });
});

after(async () => {
  await app.close();
  await services.tasks.stop();
  await services.close();
  await rm(folder, { recursive: true, force: true });
  assert.deepEqual(misfits, []);
});

describe('docs/openapi.json', () => {
  it('is what the app makes of its schemas: npm run openapi', async () => {
    assert.equal(readProjectFile(OPENAPI_FILE), await makeOpenApiText());
  });

  it('has nothing that the linter finds', () => {
    const cli = path.join(ROOT, 'node_modules/@redocly/cli/bin/cli.js');
    const { stdout, status } = spawnSync(process.execPath, [cli, 'lint', '--format=json', OPENAPI_FILE], {
      cwd: ROOT,
      encoding: 'utf8',
      env: { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' },
    });
    const { totals, problems } = JSON.parse(stdout) as { totals: Record<string, number>; problems: unknown[] };
    assert.deepEqual([status, totals['errors'], totals['warnings'], problems], [0, 0, 0, []]);
  });

  it('has every route of the app, but for the pages and the document itself', async () => {
    const documented = OPERATIONS.map(({ method, route }) => `${method} ${route}`);
    const served: string[] = [];
    for (const { method, path: routePath } of registeredRoutes(app)) {
      if (/^\/(?:docs|openapi\.json)/.test(routePath) || method === 'HEAD') continue;
      const response = await fetch(url + routePath.replaceAll(/:\w+/g, 'x'), { method }).catch(() => undefined);
      await response?.body?.cancel();
      // TRACE can't be sent by fetch; no route serves it.
      if (response !== undefined && response.status !== 405) {
        served.push(`${method} ${routePath.replaceAll(/:(\w+)/g, '{$1}').replace('*', '{folder}/{filename}')}`);
      }
    }
    assert.deepEqual(documented.sort(), served.sort());
  });

  it('has a name, a summary, a tag and examples for every operation', () => {
    assert.match(DOCUMENT.openapi, /^3\.1\./);
    const ids = OPERATIONS.map(({ operation }) => operation.operationId);
    assert.equal(new Set(ids).size, ids.length);
    for (const { operation } of OPERATIONS) {
      assert.ok(operation.summary.length > 0 && operation.tags.length === 1, operation.operationId);
      for (const { example } of Object.values(operation.requestBody?.content ?? {})) {
        assert.notEqual(example, undefined, operation.operationId);
      }
    }
  });
});

for (const { route, method, operation } of OPERATIONS) {
  if (STREAMS.includes(operation.operationId)) continue;
  describe(`${method} ${route}`, () => {
    it('takes the request of the document', async () => {
      await assertAnswer(await send(route, method, operation), operation, 200);
    });

    it('refuses a request that the document forbids', async () => {
      const { response, status } = await sendInvalid(route, method, operation);
      await assertAnswer(response, operation, status);
    });
  });
}

describe('GET /openapi.json', () => {
  it('returns the document, without a key', async () => {
    const response = await fetch(`${url}/openapi.json`);
    assert.equal(response.status, 200);
    assert.deepEqual(await response.json(), DOCUMENT);
  });
});

describe('GET /docs', () => {
  for (const route of ['/docs', '/docs/']) {
    it(`is a page without a key, and has no script of its own: ${route}`, async () => {
      const response = await fetch(url + route);
      const page = await response.text();
      assert.equal(response.status, 200);
      assert.match(response.headers.get('content-type') ?? '', /^text\/html/);
      const scripts = [...page.matchAll(/<script([^>]*)>([^<]*)<\/script>/g)];
      assert.ok(scripts.length > 0);
      for (const [, attributes = '', text = ''] of scripts) {
        assert.match(attributes, /^ src="\/docs\/[\w-]+\.js"$/);
        assert.equal(text.trim(), '');
      }
      assert.doesNotMatch(page, /\son\w+=|javascript:|https?:\/\//);
    });
  }

  it('has files that are all there, each with a policy that refuses scripts from elsewhere', async () => {
    const page = await (await fetch(`${url}/docs`)).text();
    const files = [...page.matchAll(/(?:src|href)="([^"]+)"/g)].map((match) => match[1] ?? '');
    assert.ok(files.length >= 4);
    for (const file of ['/docs', '/openapi.json', ...files.filter((name) => name !== 'data:,')]) {
      const response = await fetch(url + file);
      await response.body?.cancel();
      assert.equal(response.status, 200, file);
      const policy = response.headers.get('content-security-policy') ?? '';
      assert.ok(policy.includes("default-src 'none'; script-src 'self';"), file);
      assert.doesNotMatch(policy, /unsafe-eval|script-src[^;]*unsafe|https?:|\*/);
    }
  });

  it('refuses methods that change something', async () => {
    assert.equal((await fetch(`${url}/docs`, { method: 'POST' })).status, 405);
  });
});

describe('a response', () => {
  it('that does not fit its schema fails a test', async () => {
    const own = await buildStatusApp();
    const found = validateResponses(own);
    const response = await fetch(`${await own.listen({ host: '127.0.0.1', port: 0 })}/status`);
    assert.equal(response.status, 500);
    assert.match(found.join(), /GET \/status 200: .*must NOT have additional properties/);
    await own.close();
  });

  it('never leaks a field that its schema does not have', async () => {
    const own = await buildStatusApp();
    const response = await fetch(`${await own.listen({ host: '127.0.0.1', port: 0 })}/unlock/status`);
    assert.equal(response.status, 200);
    assert.deepEqual(await response.json(), { state: 'idle', error: null, code: null, progress: null });
    await own.close();
  });
});

/** An app whose routes of status have a field that is in no schema. */
async function buildStatusApp(): Promise<FastifyInstance> {
  const unlockStatus = { state: 'idle', error: null, code: null, progress: null, password: 'hush' } as const;
  const apiClient = { ...API_CLIENT, unlockStatus };
  const { app: own } = await makeTestApp({ apiClient, isValidated: false });
  own.addHook('preSerialization', (request, _reply, payload, done) => {
    done(null, request.url.endsWith('status') ? { ...(payload as object), secret: 'hush' } : payload);
  });
  return own;
}

interface Change {
  readonly query?: Readonly<Record<string, string>>;
  readonly path?: Readonly<Record<string, string>>;
  readonly body?: Readonly<Record<string, unknown>>;
  readonly key?: string;
}

/** Sends the request that the document has as its example, with `change`. */
async function send(route: string, method: string, operation: Operation, change: Change = {}): Promise<Response> {
  const parameters = operation.parameters ?? [];
  const query = parameters.filter((parameter) => parameter.in === 'query');
  const examples = Object.fromEntries(query.map(({ name, example = '' }) => [name, example]));
  const params = new URLSearchParams({ ...examples, ...change.query }).toString();
  const ids = change.path ?? (await existing(route));
  const target = route.replaceAll(/\{(\w+)\}/g, (_match, name: string) => {
    const parameter = parameters.find((known) => known.in === 'path' && known.name === name);
    return encodeURIComponent(ids[name] ?? parameter?.example ?? '');
  });
  const headers: Record<string, string> = { authorization: `Bearer ${change.key ?? KEY}` };
  const [[mediaType, content] = []] = Object.entries(operation.requestBody?.content ?? {});
  const fields = change.body ?? content?.example;
  let body: string | FormData | null = null;
  if (mediaType === 'application/json') {
    headers['content-type'] = mediaType;
    body = JSON.stringify(fields);
  } else if (mediaType === 'multipart/form-data') {
    body = toForm(fields ?? {});
  }
  return await fetch(`${url}${target}${params === '' ? '' : `?${params}`}`, { method, headers, body });
}

/** A request that is at fault where the document has a rule; what has no rule lacks its key, or has another method. */
async function sendInvalid(
  route: string,
  method: string,
  operation: Operation,
): Promise<{ readonly response: Response; readonly status: number }> {
  const [content] = Object.values(operation.requestBody?.content ?? {});
  const [required] = (content?.schema['required'] as readonly string[] | undefined) ?? [];
  if (required !== undefined) {
    const body = Object.fromEntries(Object.entries(content?.example ?? {}).filter(([name]) => name !== required));
    return { response: await send(route, method, operation, { body }), status: 422 };
  }
  const ruled = operation.parameters?.find(({ schema }) => 'format' in schema || 'enum' in schema);
  if (ruled !== undefined) {
    const query = { [ruled.name]: '..' };
    return { response: await send(route, method, operation, { query }), status: 422 };
  }
  if (operation.responses['404'] !== undefined) {
    const path = Object.fromEntries((operation.parameters ?? []).map(({ name }) => [name, 'unknown']));
    return { response: await send(route, method, operation, { path }), status: 404 };
  }
  if (!['/health', '/ready', '/metrics'].includes(route))
    return { response: await send(route, method, operation, { key: 'wrong' }), status: 401 };
  return { response: await send(route, 'PATCH', operation), status: 405 };
}

/** The body is that of the document for this status. */
async function assertAnswer(response: Response, operation: Operation, status: number): Promise<void> {
  const text = await response.text();
  const mediaType = /^[^;]+/.exec(response.headers.get('content-type') ?? '')?.[0] ?? 'none';
  assert.equal(response.status, status, text);
  const body: unknown = mediaType === 'application/json' ? JSON.parse(text) : text;
  const schema =
    status === 405
      ? { $ref: '#/components/schemas/Error' }
      : operation.responses[String(status)]?.content?.[mediaType]?.schema;
  assert.ok(schema !== undefined, `the document has a body for ${status}`);
  const ajv = new Ajv2020({ strict: false, validateFormats: false });
  assert.ok(ajv.validate({ ...schema, components: DOCUMENT.components }, body), ajv.errorsText());
}

/** Ids of a task and of a schedule that exist. */
async function existing(route: string): Promise<Readonly<Record<string, string>>> {
  if (route.includes('{uid}')) {
    const { runner } = services.tasks;
    const task = runner.create('verify', {}) ?? runner.running('verify');
    // Only one that has ended begins once more.
    if (route.endsWith('/retry')) while (runner.isBusy('verify')) await setImmediate();
    return { uid: task.uid };
  }
  if (!route.includes('{id}')) return {};
  const [schedule] = services.tasks.schedules.list();
  const added = { provider: 'verify', parameters: {}, cron: '0 0 * * *', timezone: 'UTC', catchUp: false };
  return await Promise.resolve({ id: (schedule ?? services.tasks.schedules.create(added)).id });
}

function toForm(fields: Readonly<Record<string, unknown>>): FormData {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (name === 'data') form.append(name, new Blob([String(value)]), 'detector.onnx');
    else form.append(name, String(value));
  }
  return form;
}

async function* chunks(): AsyncGenerator<Buffer> {
  await Promise.resolve();
  yield MODEL;
}

async function* noStatuses(): AsyncGenerator<never> {
  await Promise.resolve();
}
