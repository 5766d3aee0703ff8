import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type AddressInfo } from 'node:net';
import { after, before, beforeEach, describe, it } from 'node:test';
import { eventually } from '../../../lab/waiting.ts';
import { LoaderError } from '../../../src/errors.ts';
import type { AppServices } from '../../../src/http/app.ts';
import { makeTestApp, type TestApp } from '../../support/test-app.ts';

const UUID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/;
const MODEL = Buffer.from('a model');

interface Line {
  readonly [name: string]: unknown;
  readonly level: string;
  readonly msg: string;
}

/** What a load does in these tests, by the name of the resource. */
const LOADS: Record<string, () => AsyncIterable<Buffer>> = {
  whole: () => chunks(),
  broken: async function* () {
    yield* chunks();
    throw new LoaderError('cdn_unreachable', 'The CDN at cdn.example.com is gone.', { cause: new Error('ECONNRESET') });
  },
};

async function* chunks(): AsyncGenerator<Buffer> {
  await Promise.resolve();
  yield MODEL;
}

describe('the line of a request in the log', () => {
  let made: TestApp;
  let lines: Line[] = [];
  let port = 0;
  const hanging = Promise.withResolvers<undefined>();

  before(async () => {
    const base = (await makeTestApp()).services.apiClient;
    const apiClient: AppServices['apiClient'] = {
      status: { isAuthenticated: true, clockOffsetMs: null },
      login: () => Promise.reject(new LoaderError('wrong_credentials', 'No.')),
      load: async ({ name }, signal) => {
        if (name === 'hanging') await Promise.race([hanging.promise, once(signal, 'abort')]);
        if (name === 'absent') throw new LoaderError('not_authenticated', 'No user is logged in: POST /login first.');
        if (name === 'bug') throw new TypeError('x is not a function');
        const body = LOADS[name]?.() ?? chunks();
        const length = name === 'broken' ? MODEL.length + 1 : MODEL.length;
        const closed = { [Symbol.asyncDispose]: () => Promise.resolve() };
        return { length, source: 'cdn', identity: name, manifest: undefined, read: () => body, ...closed };
      },
      cachedResources: () => Promise.resolve({ resources: [], nextCursor: null }),
      upload: async (_name, items) => {
        for await (const item of items) if (item.kind === 'data') await Array.fromAsync(item.chunks);
      },
      unlock: () => Promise.resolve('authenticating'),
      cancelUnlock: () => Promise.resolve('idle'),
      unlockStatus: base.unlockStatus,
      watchUnlock: (signal) => base.watchUnlock(signal),
    };
    made = await makeTestApp({ apiClient, log: { write: (line) => lines.push(JSON.parse(line) as Line) } });
    await made.app.listen({ host: '127.0.0.1', port: 0 });
    ({ port } = made.app.server.address() as AddressInfo);
  });

  beforeEach(() => {
    lines = [];
  });

  after(async () => {
    hanging.resolve(undefined);
    await made.app.close();
    assert.deepEqual(made.misfits, []);
  });

  /** The lines of the log when there are `count`, without what differs from run to run. */
  async function written(count = 1): Promise<Record<string, unknown>[]> {
    const ours = () => lines.filter(({ msg }) => /^(GET|POST) /.test(msg));
    await eventually(() => Promise.resolve(ours().length >= count));
    return ours().map(({ time, ms, request_id: id, ...rest }) => {
      assert.ok(typeof time === 'string' && Number.isInteger(ms) && typeof id === 'string', JSON.stringify(rest));
      return rest;
    });
  }

  async function ask(path: string, init: RequestInit = {}): Promise<Response> {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, init);
    await response.arrayBuffer().catch(() => undefined);
    return response;
  }

  async function load(filename: string): Promise<Response> {
    return await ask(`/load/${filename}`, json({ filename, folder: 'models' }));
  }

  const LOAD = { method: 'POST', route: '/load/:filename', client: '127.0.0.1' };

  it('has what was loaded, how much of it, and from where', async () => {
    await load('whole');
    assert.deepEqual(await written(), [
      {
        level: 'info',
        ...LOAD,
        status: 200,
        resource: 'models/whole',
        bytes: MODEL.length,
        source: 'cdn',
        msg: 'POST /load/:filename 200',
      },
    ]);
  });

  it('has where an upload went, and how much came', async () => {
    const form = new FormData();
    form.set('data', new Blob([MODEL]), 'model');
    form.set('folder', 'elsewhere');
    assert.equal((await ask('/upload/model', { method: 'POST', body: form })).status, 200);
    const [{ resource, bytes } = {}] = await written();
    assert.deepEqual([resource, bytes], ['elsewhere/model', MODEL.length]);
  });

  it('tells a response that was broken off, why, and its causes without a stack', async () => {
    await load('broken').catch(() => undefined);
    const [line = {}] = await written();
    assert.deepEqual([line['level'], line['status'], line['bytes']], ['error', 200, MODEL.length]);
    assert.equal(line['code'], 'cdn_unreachable');
    assert.equal(line['msg'], 'POST /load/:filename 200, broken off: The CDN at cdn.example.com is gone.');
    assert.match(JSON.stringify(line['err']), /ECONNRESET/);
    assert.doesNotMatch(JSON.stringify(line['err']), /stack/);
  });

  it('has a stack where nobody foresaw the error', async () => {
    await load('bug');
    const [line = {}] = await written();
    assert.deepEqual([line['level'], line['code']], ['error', 'internal_error']);
    assert.match(JSON.stringify(line['err']), /x is not a function.*"stack":"TypeError/);
  });

  it('is no error where nobody is logged in, where a client is at fault, and where a login is refused', async () => {
    await load('absent');
    await ask('/login', json({}));
    await ask('/login', json({ email: 'a@b.c', password: 'password' }));
    await ask('/nowhere?password=hush');
    const got = await written(4);
    assert.deepEqual(
      got.map(({ level, status, code, msg }) => [level, status, code, msg]),
      [
        ['info', 500, 'not_authenticated', 'POST /load/:filename 500: No user is logged in: POST /login first.'],
        ['info', 422, 'validation_failed', 'POST /login 422: email: Field required; password: Field required'],
        ['info', 401, 'wrong_credentials', 'POST /login 401: No.'],
        ['info', 404, undefined, 'GET (none) 404'],
      ],
    );
    assert.ok(got.every(({ err }) => err === undefined));
  });

  it('is for level debug where it is a health check, also one that says no', async () => {
    await ask('/health');
    await ask('/ready');
    await ask('/status');
    const got = await written(3);
    assert.deepEqual(
      got.map(({ level, msg }) => [level, msg]),
      [
        ['debug', 'GET /health 200'],
        ['debug', 'GET /ready 503'],
        ['debug', 'GET /status 200'],
      ],
    );
  });

  it('tells a client that has left', async () => {
    const socket = connect(port, '127.0.0.1');
    const body = '{"filename":"hanging","folder":"models"}';
    socket.write(
      `POST /load/hanging HTTP/1.1\r\nHost: loader\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
    socket.resetAndDestroy();
    const [line = {}] = await written();
    assert.deepEqual(
      [line['level'], line['code'], line['status'], line['resource'], line['msg']],
      [
        'info',
        'client_closed',
        undefined,
        'models/hanging',
        'POST /load/:filename no response: The client closed the connection.',
      ],
    );
  });

  it('comes for a path that is none, too', async () => {
    await ask('/load/%E0%A4%A');
    const [line = {}] = await written();
    assert.deepEqual([line['level'], line['status'], line['code']], ['info', 422, 'validation_failed']);
  });

  it('has the id that its response has: that of the request if it is one, otherwise a new one', async () => {
    const given = ['a', 'trace-1/2:3.4', 'x'.repeat(128)];
    for (const id of given) {
      const response = await ask('/health', { headers: { 'x-request-id': id } });
      assert.equal(response.headers.get('x-request-id'), id);
    }
    const made = new Set<string>();
    for (const id of [undefined, '', 'two words', '<b>', 'x'.repeat(129), '"']) {
      const response = await ask('/health', id === undefined ? {} : { headers: { 'x-request-id': id } });
      assert.match(response.headers.get('x-request-id') ?? '', UUID);
      made.add(response.headers.get('x-request-id') ?? '');
    }
    assert.equal(made.size, 6);
    // A body that its handler writes, and a refusal before any handler.
    assert.match((await load('whole')).headers.get('x-request-id') ?? '', UUID);
    assert.match((await ask('/load/%E0%A4%A')).headers.get('x-request-id') ?? '', UUID);
    await written(given.length + 8);
    assert.deepEqual(
      lines.map((line) => line['request_id']).filter((id) => given.includes(String(id))),
      given,
    );
  });
});

function json(body: object): RequestInit {
  return { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
}
