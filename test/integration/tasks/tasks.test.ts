import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import path from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { filesWith } from '../../support/files-with.ts';
import { Device } from '../../support/device.ts';
import { noteSecrets, S3_SKIP } from '../../../lab/test-environment.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';
import { eventually } from '../../../lab/waiting.ts';
import { TestLoader, newApiKey } from '../../support/test-loader.ts';
import type { JsonAnswer } from '../../../lab/json-answer.ts';
import { prefetchOf, TaskClient, type HistoryPage, type TaskView } from '../../../lab/task-client.ts';

const UUID = /^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const NOBODYS_UID = '00000000-0000-4000-8000-000000000000';
const BUSY = { message: 'A job with the same provider is already in progress' };
/** Well above any cache of these tests: there is nothing to evict. */
const EVICT_NOTHING = { max_bytes: 1e12 };

const ROUTES: readonly (readonly [method: string, route: string])[] = [
  ['POST', '/'],
  ['GET', '/tasks'],
  ['HEAD', '/tasks'],
  ['GET', '/tasks/history'],
  ['GET', `/tasks/${NOBODYS_UID}`],
  ['DELETE', `/tasks/${NOBODYS_UID}`],
  ['GET', `/tasks/${NOBODYS_UID}/logs`],
  ['GET', `/tasks/${NOBODYS_UID}/events`],
  ['POST', '/schedules'],
  ['GET', '/schedules'],
  ['DELETE', `/schedules/${NOBODYS_UID}`],
];

describe('the routes of the tasks', { skip: S3_SKIP }, () => {
  let device: Device;
  const key = newApiKey();
  const nextKey = newApiKey();
  const content = randomBytes(12_000_000);
  let gate = Promise.withResolvers<undefined>();

  before(async () => {
    const env = { API_KEY: `${key},${nextKey}`, UPSTREAM_TIMEOUT_MS: '30000', STALL_TIMEOUT_MS: '30000' };
    device = await Device.start({ env });
    await device.login();
    await device.upload('model', content);
  });

  afterEach(async () => {
    gate.resolve(undefined);
    device.heal();
    await idle();
  });

  after(() => device.stop());

  /** Waits until no task runs. */
  async function idle(): Promise<void> {
    await eventually(async () =>
      Object.values(await device.tasks.list()).every(({ status }) => status !== 'in_progress'),
    );
  }

  /** A prefetch that stays where it is until the gate is opened. */
  async function beginHeldPrefetch(): Promise<string> {
    await device.clearCache();
    gate = Promise.withResolvers();
    device.s3Proxy.fault = () => ({ kind: 'hold', until: gate.promise });
    const uid = await device.tasks.beginPrefetch('model');
    await eventually(() => device.s3Proxy.openRequests > 0);
    return uid;
  }

  async function historyUids(): Promise<string[]> {
    return (await device.tasks.wholeHistory()).map(({ uid }) => uid);
  }

  /** The request is refused with this one fault, and no task is made of it. */
  async function expectFault(body: unknown, fault: object): Promise<void> {
    const before = await historyUids();
    const answer = await device.loader.postForJson('/', body);
    assert.deepEqual([answer.status, answer.body], [422, { detail: [fault], code: 'validation_failed' }]);
    assert.deepEqual(await historyUids(), before);
  }

  it('answer a new task in the form of the original, and list it by its uid while it runs', async () => {
    await device.clearCache();
    gate = Promise.withResolvers();
    device.s3Proxy.fault = () => ({ kind: 'hold', until: gate.promise });
    const { status, body } = await device.tasks.post('prefetch', prefetchOf('model'));
    const uid = String(body['uid']);
    assert.match(uid, UUID);
    const task = { uid, status: 'in_progress', progress: 0, result: null, provider: 'prefetch' };
    assert.deepEqual([status, body], [200, task]);
    assert.deepEqual((await device.tasks.list())[uid], task);
  });

  it('begin one task for 20 concurrent calls, whose parameters may differ', async () => {
    const before = await historyUids();
    await device.clearCache();
    gate = Promise.withResolvers();
    device.s3Proxy.fault = () => ({ kind: 'hold', until: gate.promise });
    const calls = Array.from({ length: 20 }, (_, index) =>
      device.tasks.post('prefetch', prefetchOf('model', ...(index % 2 === 0 ? ['other'] : []))),
    );
    const answers = await Promise.all(calls);
    assert.ok(answers.every(({ status }) => status === 200));
    const begun = answers.filter(({ body }) => body['status'] === 'in_progress');
    assert.equal(begun.length, 1);
    const refused = answers.filter(({ body }) => body['status'] === undefined).map(({ body }) => body);
    assert.deepEqual(refused, new Array(19).fill({ ...BUSY, uid: begun[0]?.body['uid'] }));
    assert.deepEqual(await historyUids(), [begun[0]?.body['uid'], ...before]);
    // A fault of the request is told first.
    assert.equal((await device.tasks.post('prefetch', { resources: 'none' })).status, 422);
  });

  it('run tasks of different providers side by side', async () => {
    const prefetch = await beginHeldPrefetch();
    const { status, uid } = await device.tasks.run('evict', EVICT_NOTHING);
    assert.equal(status, 'complete');
    assert.equal((await device.tasks.details(prefetch)).status, 'in_progress');
    const list = await device.tasks.list();
    assert.deepEqual([list[prefetch]?.status, list[uid]?.status], ['in_progress', 'complete']);
  });

  it('keep a finished task in the list for a second, complete at 100, and then no more', async () => {
    const uid = await beginHeldPrefetch();
    gate.resolve(undefined);
    await device.tasks.ended(uid);
    const endedAt = performance.now();
    const { result } = await device.tasks.details(uid);
    assert.notEqual(result, null);
    let lastSeenAt = 0;
    while (performance.now() - endedAt < 1500) {
      const task = (await device.tasks.list())[uid];
      const seenAt = performance.now() - endedAt;
      if (task === undefined) break;
      assert.deepEqual(task, { uid, status: 'complete', progress: 100, result, provider: 'prefetch' });
      lastSeenAt = seenAt;
      await sleep(20);
    }
    assert.ok(lastSeenAt > 850 && lastSeenAt < 1300, `it was last seen after ${lastSeenAt} ms`);
    assert.equal((await device.tasks.list())[uid], undefined);
    assert.equal((await device.tasks.details(uid)).status, 'complete');
  });

  it('may begin the next task of a provider while its last one is still listed', async () => {
    const first = await device.tasks.run('evict', EVICT_NOTHING);
    const second = await device.tasks.run('evict', EVICT_NOTHING);
    assert.notEqual(first.uid, second.uid);
    const list = await device.tasks.list();
    assert.deepEqual([list[first.uid]?.progress, list[second.uid]?.progress], [100, 100]);
  });

  for (const [method, route] of ROUTES) {
    it(`refuse ${method} ${route} without a key, with a wrong one, and with one in the query`, async () => {
      const attempts: readonly (readonly [string, string | undefined])[] = [
        [route, undefined],
        [route, 'Bearer wrong'],
        [route, `Bearer ${key}x`],
        [route, `Bearer ${key.slice(0, -1)}`],
        [route, `Bearer ${key},${nextKey}`],
        [route, 'Bearer'],
        [route, key],
        [route, `Basic ${Buffer.from(`operator:${key}`).toString('base64')}`],
        [`${route}?api_key=${key}&token=${key}&access_token=${key}&key=${key}`, undefined],
      ];
      for (const [target, authorization] of attempts) {
        const response = await fetch(device.loader.url + target, {
          method,
          headers: { 'content-type': 'application/json', ...(authorization === undefined ? {} : { authorization }) },
          ...(method === 'POST' ? { body: JSON.stringify({ provider: 'evict', ...EVICT_NOTHING }) } : {}),
        });
        assert.equal(response.status, 401, `${target} with ${authorization}`);
        assert.equal(response.headers.get('www-authenticate'), 'Bearer');
        const text = await response.text();
        if (method !== 'HEAD') assert.match(text, /^\{"detail":"Forbidden: [^"]+","code":"forbidden"\}$/);
      }
    });
  }

  it('take each of several keys, so that they can be rotated', async () => {
    for (const good of [key, nextKey]) {
      for (const scheme of ['Bearer', 'bearer']) {
        const response = await fetch(`${device.loader.url}/tasks`, { headers: { authorization: `${scheme} ${good}` } });
        assert.equal(response.status, 200);
      }
    }
  });

  it('are closed where no key is set, while the others are open', async () => {
    const loader = await TestLoader.start({ env: { MODEL_CACHE_DIR: path.join(device.folder, 'keyless') } });
    try {
      for (const [method, route] of ROUTES) {
        const response = await fetch(loader.url + route, { method, headers: { authorization: 'Bearer ' } });
        assert.equal(response.status, 401, `${method} ${route}`);
      }
      assert.equal((await fetch(`${loader.url}/unlock/status`)).status, 200);
    } finally {
      await loader.stop('SIGKILL');
    }
  });

  it('answer an unknown provider with the list of those that there are', async () => {
    const msg = "Input should be 'evict', 'prefetch', 'release', 'unlock' or 'verify'";
    for (const provider of ['nonsense', '', 'Prefetch', 'constructor', '__proto__']) {
      await expectFault({ provider }, { type: 'literal_error', loc: ['body', 'provider'], msg });
    }
  });

  const RESOURCE = { folder: 'models', filename: 'model' };
  const FAULTS: readonly (readonly [
    what: string,
    body: unknown,
    fault: { type: string; loc: string[]; msg?: string },
  ])[] = [
    ['no provider', {}, { type: 'missing', loc: ['body', 'provider'], msg: 'Field required' }],
    ['a provider that is no string', { provider: 5 }, { type: 'string_type', loc: ['body', 'provider'] }],
    ['a body that is a list', ['evict'], { type: 'model_attributes_type', loc: ['body'] }],
    ['no resources', { provider: 'prefetch' }, { type: 'missing', loc: ['body', 'resources'] }],
    ['an empty list', { provider: 'prefetch', resources: [] }, { type: 'value_error', loc: ['body', 'resources'] }],
    [
      '1,001 resources',
      { provider: 'prefetch', resources: new Array(1001).fill(RESOURCE) },
      { type: 'value_error', loc: ['body', 'resources'] },
    ],
    [
      'a resource without a name',
      { provider: 'prefetch', resources: [RESOURCE, { folder: 'models' }] },
      { type: 'missing', loc: ['body', 'resources', '1', 'filename'] },
    ],
    [
      'a path that leads out',
      { provider: 'prefetch', resources: [{ folder: '../etc', filename: 'passwd' }] },
      { type: 'value_error', loc: ['body', 'resources', '0', 'folder'] },
    ],
    [
      'a parameter too many',
      { provider: 'verify', deep: true },
      { type: 'extra_forbidden', loc: ['body', 'deep'], msg: 'Extra inputs are not permitted' },
    ],
    ['no limit of an evict', { provider: 'evict' }, { type: 'value_error', loc: ['body'] }],
    ['a negative age', { provider: 'evict', max_age_days: -1 }, { type: 'value_error', loc: ['body', 'max_age_days'] }],
    ['half a byte', { provider: 'evict', max_bytes: 0.5 }, { type: 'int_type', loc: ['body', 'max_bytes'] }],
    [
      'an unlock without a password',
      { provider: 'unlock', email: 'a@example.com' },
      { type: 'missing', loc: ['body', 'password'], msg: 'Field required' },
    ],
  ];
  for (const [what, body, expected] of FAULTS) {
    it(`answer ${what} with 422 and its place, and make no task`, async () => {
      const before = await historyUids();
      const answer = await device.loader.postForJson('/', body);
      const [fault, ...others] = answer.body.detail as { type: string; loc: string[]; msg: string }[];
      assert.deepEqual([answer.status, answer.body.code, others], [422, 'validation_failed', []]);
      assert.ok(typeof fault?.msg === 'string' && fault.msg !== '');
      assert.deepEqual(
        { ...fault, ...(expected.msg === undefined ? { msg: undefined } : {}) },
        { msg: undefined, ...expected },
      );
      assert.deepEqual(await historyUids(), before);
      assert.ok(Object.values(await device.tasks.list()).every(({ status }) => status !== 'in_progress'));
    });
  }

  it('take a new task after one that was refused', async () => {
    await device.tasks.post('prefetch', {});
    assert.equal((await device.tasks.prefetch('model')).status, 'complete');
  });

  it('show and keep no password, wherever in the parameters it stands', async () => {
    const secret = `secret-${randomBytes(12).toString('hex')}`;
    noteSecrets(secret);
    const bodies: readonly object[] = [
      { provider: 'unlock', email: 'a@example.com', password: secret, extra: secret },
      { provider: 'unlock', email: 5, password: secret },
      { provider: 'unlock', password: [secret] },
      { provider: 'verify', password: secret },
      { provider: 'verify', [secret]: 1 },
      { provider: secret },
      { provider: 'prefetch', resources: [{ folder: 'models', filename: 'a/b', password: secret }] },
    ];
    for (const body of bodies) {
      const { status, body: answer } = await device.loader.postForJson('/', body);
      assert.deepEqual([status, JSON.stringify(answer).includes(secret)], [422, false], JSON.stringify(answer));
    }
    // There is no archive: it fails, with its password all right.
    const { uid } = await device.tasks.run('unlock', { email: 'a@example.com', password: secret });
    const seen = JSON.stringify([
      await device.tasks.details(uid),
      await device.tasks.history(),
      await device.tasks.list(),
      await device.tasks.lines(uid),
    ]);
    assert.ok(seen.includes('a@example.com') && !seen.includes(secret));
    await device.loader.stop('SIGKILL');
    assert.deepEqual(await filesWith(secret, device.stateFolder), []);
    assert.ok(!device.loader.log().includes(secret));
    await device.startLoader();
    await device.login();
  });

  it('tell all there is to know of a task, while it runs and afterwards', async () => {
    const beganAt = Date.now();
    const uid = await beginHeldPrefetch();
    const running = await device.tasks.details(uid);
    assert.match(running.created_at, TIME);
    assert.ok(Math.abs(Date.parse(running.created_at) - beganAt) < 2000);
    const expected: TaskView = {
      uid,
      status: 'in_progress',
      progress: 0,
      result: null,
      provider: 'prefetch',
      bytes_done: 0,
      bytes_total: null,
      waiting_for: null,
      parameters: prefetchOf('model'),
      error: null,
      code: null,
      attempt: 1,
      retry_of: null,
      schedule: null,
      created_at: running.created_at,
      finished_at: null,
    };
    assert.deepEqual(running, expected);
    gate.resolve(undefined);
    const ended = await device.tasks.ended(uid);
    assert.match(ended.finished_at ?? '', TIME);
    const bytes = 12_000_000 + 16 + 16 - 3072;
    assert.deepEqual(ended, {
      ...expected,
      status: 'complete',
      progress: 100,
      bytes_done: bytes,
      bytes_total: bytes,
      result: {
        resources: [{ folder: 'models', filename: 'model', status: 'fetched', bytes, error: null, code: null }],
      },
      finished_at: ended.finished_at,
    });
    assert.ok(Date.parse(ended.finished_at ?? '') >= Date.parse(ended.created_at));
    assert.deepEqual(await device.tasks.details(uid), ended);
    assert.deepEqual((await device.tasks.history('?limit=1')).tasks, [ended]);
    await device.restartLoader();
    assert.deepEqual(await device.tasks.details(uid), ended, 'the next start shows it otherwise');
    await device.login();
  });

  it('give the lines of a log, or those after a number', async () => {
    const { uid } = await device.tasks.prefetch('model', 'absent-1', 'absent-2');
    const lines = await device.tasks.lines(uid);
    assert.equal(lines.length, 4);
    assert.deepEqual(
      lines.map(({ line }) => line),
      [1, 2, 3, 4],
    );
    // The resources have no order, but the end has.
    const levels = lines.map(({ level }) => level);
    assert.deepEqual([...levels.slice(0, 3).sort(), levels[3]], ['info', 'warn', 'warn', 'error']);
    for (const { time, text } of lines) assert.ok(TIME.test(time) && text.length > 10, text);
    assert.deepEqual(await device.tasks.lines(uid, 0), lines);
    assert.deepEqual(await device.tasks.lines(uid, 1), lines.slice(1));
    assert.deepEqual(await device.tasks.lines(uid, 4), []);
    assert.deepEqual(await device.tasks.lines(uid, 999_999_999_999_999), []);
    for (const after of ['-1', 'x', '', '1.5', '1e3', '9999999999999999', '1&after=2']) {
      const { status, body } = await device.loader.get(`/tasks/${uid}/logs?after=${after}`);
      assert.deepEqual([status, body.code], [422, 'validation_failed'], `after=${after}`);
      assert.deepEqual((body.detail as { loc: string[] }[])[0]?.loc, ['query', 'after']);
    }
  });

  it('answer 404 for tasks that there are not, and for what is no uid', async () => {
    for (const uid of [NOBODYS_UID, 'x', '%00', '..%2f..%2fetc', 'a'.repeat(5000), '%F0%9F%92%A9', "'%20OR%201=1"]) {
      for (const suffix of ['', '/logs', '/events']) {
        const { status, body } = await device.loader.get(`/tasks/${uid}${suffix}`);
        assert.deepEqual([status, body.code], [404, 'task_not_found'], uid + suffix);
      }
      const { status, body } = await device.loader.delete(`/tasks/${uid}`);
      assert.deepEqual([status, body.code], [404, 'task_not_found'], uid);
    }
    assert.equal((await device.loader.get('/tasks/')).status, 404);
    assert.equal((await device.loader.get(`/tasks/${NOBODYS_UID}/nothing`)).body.code, 'not_found');
  });

  it('answer 405 to other methods', async () => {
    const others: readonly (readonly [string, string])[] = [
      ['GET', '/'],
      ['POST', '/tasks'],
      ['PUT', `/tasks/${NOBODYS_UID}`],
      ['DELETE', '/tasks/history'],
      ['HEAD', `/tasks/${NOBODYS_UID}/events`],
      ['POST', `/tasks/${NOBODYS_UID}/events`],
      ['DELETE', '/schedules'],
      ['GET', `/schedules/${NOBODYS_UID}`],
    ];
    for (const [method, route] of others) {
      const response = await fetch(device.loader.url + route, { method, headers: device.loader.authorization });
      await response.text();
      assert.equal(response.status, 405, `${method} ${route}`);
    }
  });

  it('answer HEAD as GET, without a body', async () => {
    const { uid } = await device.tasks.run('evict', EVICT_NOTHING);
    for (const route of ['/tasks', '/tasks/history', `/tasks/${uid}`, `/tasks/${uid}/logs`, '/schedules']) {
      const response = await fetch(device.loader.url + route, { method: 'HEAD', headers: device.loader.authorization });
      assert.deepEqual([response.status, await response.text()], [200, ''], route);
      assert.ok(Number(response.headers.get('content-length')) > 0);
    }
  });

  it('cancel a running task, for as many as ask for it, and answer all of them the same', async () => {
    const uid = await beginHeldPrefetch();
    const answers = await Promise.all(Array.from({ length: 5 }, () => device.tasks.cancel(uid)));
    const [first] = answers;
    assert.deepEqual([first?.status, first?.code, first?.result], ['cancelled', 'task_cancelled', null]);
    assert.ok(first?.finished_at !== null && Number(first?.progress) < 100);
    for (const answer of answers) assert.deepEqual(answer, first);
    assert.deepEqual(await device.tasks.cancel(uid), first, 'a second call changed it');
    assert.deepEqual(await device.tasks.details(uid), first);
    await eventually(() => device.s3Proxy.openRequests === 0, { timeoutMs: 100 });
    // Its place is free at once.
    gate.resolve(undefined);
    device.heal();
    assert.equal((await device.tasks.prefetch('model')).status, 'complete');
  });

  it('leave a finished task as it is when it is cancelled', async () => {
    for (const ended of [await device.tasks.prefetch('model'), await device.tasks.prefetch('absent')]) {
      assert.deepEqual(await device.tasks.cancel(ended.uid), ended);
      await sleep(1100);
      assert.deepEqual(await device.tasks.cancel(ended.uid), ended);
    }
  });

  it('cancel for clients that call an empty body JSON, too', async () => {
    const uid = await beginHeldPrefetch();
    const response = await fetch(`${device.loader.url}/tasks/${uid}`, {
      method: 'DELETE',
      headers: { ...device.loader.authorization, 'content-type': 'application/json' },
    });
    assert.deepEqual([response.status, (await device.loader.readJson(response)).body['status']], [200, 'cancelled']);
  });

  it('cancel even when the client does not wait for the answer', async () => {
    const uid = await beginHeldPrefetch();
    const abort = new AbortController();
    const cancelling = device.loader.delete(`/tasks/${uid}`, abort.signal).catch(() => undefined);
    abort.abort();
    await cancelling;
    // The request may not even have been sent: at most one more is needed.
    if ((await device.tasks.details(uid)).status === 'in_progress') await device.tasks.cancel(uid);
    assert.equal((await device.tasks.details(uid)).status, 'cancelled');
  });

  it('serve loads and logins while a task runs', async () => {
    await device.upload('small', content.subarray(0, 100_000));
    const uid = await beginHeldPrefetch();
    device.heal();
    await device.login();
    await device.upload('small', content.subarray(0, 200_000));
    assert.equal((await digestBody(await device.loader.load('small'))).sha256, sha256(content.subarray(0, 200_000)));
    assert.equal((await device.tasks.details(uid)).status, 'in_progress');
  });
});

describe('the history of the tasks', { skip: S3_SKIP }, () => {
  let device: Device;
  /** Newest first. */
  const made: TaskView[] = [];

  before(async () => {
    device = await Device.start({ env: { API_KEY: newApiKey() } });
    await device.login();
    // 6 of verify, 4 of evict, 2 that failed.
    for (const provider of ['verify', 'evict', 'verify', 'prefetch', 'evict', 'verify'] as const) {
      for (let i = 0; i < 2; i++) {
        const parameters = { verify: {}, evict: EVICT_NOTHING, prefetch: prefetchOf('absent') }[provider];
        made.unshift(await device.tasks.run(provider, parameters));
      }
    }
  });

  after(() => device.stop());

  const paged = async (query: string) => {
    const pages: TaskView[][] = [];
    let cursor: string | null = '';
    while (cursor !== null) {
      const page = await device.tasks.history(`?${query}${cursor === '' ? '' : `&cursor=${cursor}`}`);
      pages.push([...page.tasks]);
      cursor = page.next_cursor;
      assert.ok(pages.length < 50, 'the pages have no end');
    }
    return pages;
  };

  it('is newest first, with all details', async () => {
    assert.deepEqual(await device.tasks.history(), { tasks: made, next_cursor: null });
  });

  it('is told by provider, by status, and by both', async () => {
    const is = (provider?: string, status?: string) =>
      made.filter((task) => (provider ?? task.provider) === task.provider && (status ?? task.status) === task.status);
    const cases: readonly (readonly [string, TaskView[], number])[] = [
      ['provider=verify', is('verify'), 6],
      ['provider=prefetch', is('prefetch'), 2],
      ['status=complete', is(undefined, 'complete'), 10],
      ['status=failed', is(undefined, 'failed'), 2],
      ['provider=evict&status=complete', is('evict', 'complete'), 4],
      ['provider=evict&status=failed', [], 0],
      ['status=interrupted', [], 0],
      ['status=in_progress', [], 0],
    ];
    for (const [query, tasks, count] of cases) {
      assert.equal(tasks.length, count);
      assert.deepEqual(await device.tasks.history(`?${query}`), { tasks, next_cursor: null }, query);
    }
  });

  it('is refused for a provider that there is not, rather than empty', async () => {
    const answer = await device.loader.fetch('/tasks/history?provider=nonsense');
    assert.equal(answer.status, 422);
    assert.match(await answer.text(), /"loc":\["query","provider"\],"msg":"Input should be 'evict', /);
  });

  it('is paged to its end, each task once, also with filters', async () => {
    for (const limit of [1, 5, 6, 11, 12, 13, 200]) {
      const pages = await paged(`limit=${limit}`);
      assert.deepEqual(pages.flat(), made);
      assert.equal(pages.length, Math.ceil(12 / limit));
    }
    const pages = await paged('limit=4&provider=verify&status=complete');
    assert.deepEqual(
      pages.map((page) => page.length),
      [4, 2],
    );
    assert.deepEqual(
      pages.flat(),
      made.filter(({ provider }) => provider === 'verify'),
    );
  });

  it('is paged to its end while tasks are added', async () => {
    const first = await device.tasks.history('?limit=6');
    made.unshift(await device.tasks.run('evict', EVICT_NOTHING));
    const second = await device.tasks.history(`?limit=6&cursor=${first.next_cursor}`);
    assert.deepEqual([...first.tasks, ...second.tasks], made.slice(1));
    assert.equal(second.next_cursor, null);
  });

  it('is paged to its end in answers of bounded length, however long its tasks are', async () => {
    const loader = await TestLoader.start({ env: { API_KEY: newApiKey() } });
    try {
      const tasks = new TaskClient(loader);
      // Nobody is logged in: they fail at once. Each has about 280,000 characters.
      const parameters = prefetchOf(...Array.from({ length: 1000 }, (_, index) => `${index}-`.padEnd(249, 'x')));
      const uids: string[] = [];
      for (let i = 0; i < 9; i++) uids.unshift((await tasks.run('prefetch', parameters)).uid);
      const seen: string[] = [];
      let cursor: string | null = '';
      let pages = 0;
      while (cursor !== null) {
        const { body } = await loader.get(`/tasks/history?limit=200${cursor === '' ? '' : `&cursor=${cursor}`}`);
        const page = body as unknown as HistoryPage;
        assert.ok(JSON.stringify(page).length < 1_500_000 && page.tasks.length > 0);
        seen.push(...page.tasks.map(({ uid }) => uid));
        cursor = page.next_cursor;
        pages++;
      }
      assert.deepEqual([seen, pages], [uids, 3]);
    } finally {
      await loader.stop('SIGKILL');
    }
  });

  it('shows a running task among the others, as far as it is', async () => {
    const gate = Promise.withResolvers<undefined>();
    await device.upload('model', randomBytes(50_000));
    await device.clearCache();
    device.s3Proxy.fault = () => ({ kind: 'hold', until: gate.promise });
    const uid = await device.tasks.beginPrefetch('model');
    const [newest] = (await device.tasks.history('?limit=1')).tasks;
    assert.deepEqual([newest?.uid, newest?.status], [uid, 'in_progress']);
    assert.deepEqual((await device.tasks.history('?status=in_progress')).tasks, [newest]);
    gate.resolve(undefined);
    device.heal();
    made.unshift(await device.tasks.ended(uid));
    assert.deepEqual((await device.tasks.history('?status=in_progress')).tasks, []);
  });

  const BAD_QUERIES = ['limit=0', 'limit=201', 'limit=-1', 'limit=x', 'limit=', 'limit=1.5', 'limit=1&limit=2'].concat(
    ['status=done', 'status=', 'status=complete&status=failed', 'cursor=x', 'cursor=', 'cursor=-1'],
    ['cursor=9999999999999999', 'provider=verify&provider=evict'],
  );
  for (const query of BAD_QUERIES) {
    it(`answers 422 to ?${query}`, async () => {
      const { status, body }: JsonAnswer = await device.loader.get(`/tasks/history?${query}`);
      assert.deepEqual([status, body.code], [422, 'validation_failed']);
      assert.equal((body.detail as { loc: string[] }[])[0]?.loc[0], 'query');
    });
  }

  it('ends where a cursor of nowhere points to', async () => {
    assert.deepEqual(await device.tasks.history('?cursor=0'), { tasks: [], next_cursor: null });
    assert.deepEqual((await device.tasks.history('?cursor=999999999999999')).tasks, made);
  });

  it('is as it was after a restart, and after kill -9', async () => {
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      await device.restartLoader(signal);
      assert.deepEqual((await device.tasks.history()).tasks, made);
    }
  });

  it('keeps no more than TASK_HISTORY_COUNT tasks, the newest', async () => {
    await device.loader.stop();
    await device.startLoader({ TASK_HISTORY_COUNT: '5' });
    assert.deepEqual((await device.tasks.history()).tasks, made.slice(0, 5));
    made.unshift(await device.tasks.run('evict', EVICT_NOTHING));
    assert.deepEqual((await device.tasks.history()).tasks, made.slice(0, 5));
    const gone = made[5]?.uid ?? '';
    for (const suffix of ['', '/logs', '/events']) {
      assert.equal((await device.loader.get(`/tasks/${gone}${suffix}`)).status, 404);
    }
  });
});
