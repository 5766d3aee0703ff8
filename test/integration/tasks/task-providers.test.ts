import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, readFile, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Device } from '../../support/device.ts';
import type { Fault, SeenRequest } from '../../../lab/faults/fault-proxy.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';
import { eventually } from '../../../lab/waiting.ts';
import { TestLoader, newApiKey } from '../../support/test-loader.ts';
import { prefetchOf, type TaskView } from '../../../lab/task-client.ts';

const PASS: Fault = { kind: 'pass' };
const MB = 1_000_000;
const DAY_MS = 24 * 60 * 60 * 1000;
const isRange = ({ headers }: SeenRequest) => /^bytes=\d/.test(headers.range ?? '');
/** None of these plaintexts has a length that is a multiple of 16. */
const bigLength = (length: number) => 16 + length + 16 - (length % 16) - 3072;

/** Faults wait for ever: it is the tests that end them. */
const SLOW_DOWN = { kind: 'answer', status: 503, body: '<Error><Code>SlowDown</Code></Error>' } as const;
const ENV = { UPSTREAM_TIMEOUT_MS: '30000', STALL_TIMEOUT_MS: '30000' };

async function exists(file: string): Promise<boolean> {
  return await stat(file).then(
    () => true,
    () => false,
  );
}

async function flipBit(file: string, position: number): Promise<void> {
  await using handle = await open(file, 'r+');
  const byte = Buffer.alloc(1);
  await handle.read(byte, 0, 1, position);
  await handle.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, position);
}

/** Loads it and compares; answers how many requests the CDN got for it. */
async function assertLoads(device: Device, name: string, content: Buffer): Promise<number> {
  const before = device.s3Proxy.requests.length;
  assert.equal((await digestBody(await device.loader.load(name))).sha256, sha256(content));
  return device.s3Proxy.requests.length - before;
}

/** Progress as it was told until the end of the task. */
async function reports(device: Device, uid: string): Promise<TaskView[]> {
  const events = await Array.fromAsync(device.tasks.events(uid));
  return events.filter(({ event }) => event !== 'log').map(({ data }) => data as TaskView);
}

function assertNeverBack(seen: readonly TaskView[]): void {
  let [bytes, percent] = [0, 0];
  for (const { bytes_done: bytesDone, bytes_total: bytesTotal, progress } of seen) {
    assert.ok(bytesDone >= bytes && bytesDone <= (bytesTotal ?? Infinity), `${bytesDone} after ${bytes}`);
    assert.ok(progress >= percent, `${progress} after ${percent}`);
    [bytes, percent] = [bytesDone, progress];
  }
  assert.ok(bytes > 0);
}

function assertByBytes(seen: readonly TaskView[], total: number): void {
  assertNeverBack(seen);
  const last = seen.at(-1);
  assert.deepEqual([last?.bytes_done, last?.bytes_total, last?.progress], [total, total, 100]);
}

interface PrefetchResult {
  readonly resources: readonly {
    readonly filename: string;
    readonly status: string;
    readonly bytes: number;
    readonly code: string | null;
    readonly error: string | null;
  }[];
}

/** Name, status and code of each resource. */
function outcomes(task: TaskView): (readonly [string, string, string | null])[] {
  return (task.result as PrefetchResult).resources.map(({ filename, status, code }) => [filename, status, code]);
}

describe('a prefetch', { skip: S3_SKIP }, () => {
  let device: Device;
  const contents = new Map([
    ['small', randomBytes(50_001)],
    ['middle', randomBytes(3 * MB + 1)],
    ['other', randomBytes(3 * MB + 2)],
    ['large', randomBytes(20 * MB + 1)],
  ]);
  const contentOf = (name: string) => contents.get(name) ?? Buffer.alloc(0);
  const bytesOf = (...names: string[]) => names.reduce((sum, name) => sum + bigLength(contentOf(name).length), 0);

  before(async () => {
    device = await Device.start({ env: { API_KEY: newApiKey(), ...ENV } });
    await device.login();
    for (const [name, content] of contents) await device.upload(name, new Uint8Array(content));
    await device.origin.api.store('models', 'only-small.small', randomBytes(3072));
  });

  beforeEach(async () => {
    device.heal();
    await device.clearCache();
  });

  after(() => device.stop());

  const slowly = (bytesPerSecond: number) => (request: SeenRequest) =>
    isRange(request) ? ({ kind: 'throttle', bytesPerSecond } as const) : PASS;

  /** The proxies hear of a closed connection a moment after the answer. */
  async function assertNoRequests(): Promise<void> {
    await eventually(() => device.s3Proxy.openRequests + device.apiProxy.openRequests === 0, { timeoutMs: 100 });
  }

  /** Nothing of it is left: no connection, no open file, no unfinished one, and nothing in the cache. */
  async function assertNothingIsLeft(connectionsBefore: number): Promise<void> {
    await assertNoRequests();
    await eventually(() => device.s3Proxy.openConnections <= connectionsBefore, {
      timeoutMs: 1000,
      what: 'the end of the connections that the task opened',
    });
    assert.deepEqual(device.loader.openFilesUnder(device.cacheFolder), []);
    assert.deepEqual(await device.unfinishedFiles(), []);
    assert.deepEqual(await readdir(path.join(device.cacheFolder, 'models')).catch(() => []), []);
  }

  async function cancelWithinASecond(uid: string): Promise<TaskView> {
    const late = sleep(1000, undefined, { ref: false });
    const task = await Promise.race([device.tasks.cancel(uid), late]);
    assert.ok(task !== undefined, 'there was no answer within a second');
    assert.deepEqual([task.status, task.code], ['cancelled', 'task_cancelled']);
    return task;
  }

  it('brings resources into the cache, from which their next loads come alone', async () => {
    const task = await device.tasks.prefetch(...contents.keys());
    assert.deepEqual([task.status, task.progress, task.error], ['complete', 100, null]);
    assert.deepEqual(
      outcomes(task),
      [...contents.keys()].map((name) => [name, 'fetched', null]),
    );
    const { resources } = task.result as PrefetchResult;
    for (const { filename, bytes } of resources) assert.equal(bytes, bigLength(contentOf(filename).length));
    assert.deepEqual([task.bytes_done, task.bytes_total], [bytesOf(...contents.keys()), bytesOf(...contents.keys())]);
    for (const [name, content] of contents) {
      assert.equal((await stat(device.bigPath(name))).size, bigLength(content.length));
      assert.equal(await assertLoads(device, name, content), 0, `the CDN was asked for ${name}`);
    }
    await device.settled();
  });

  it('asks the API and the CDN once for each resource, and then for its ranges', async () => {
    await device.tasks.prefetch(...contents.keys());
    const { requests } = device.s3Proxy;
    const asked = requests.flatMap(({ headers }) => headers.range ?? []);
    assert.equal(requests.filter(({ url }) => url.includes('.manifest')).length, contents.size);
    assert.equal(asked.filter((range) => range.startsWith('bytes=-')).length, contents.size);
    // The large one has three ranges, the others one each.
    assert.equal(asked.filter((range) => !range.startsWith('bytes=-')).length, contents.size + 2);
    assert.equal(device.apiProxy.requests.length, contents.size);
  });

  it('tells its progress by bytes, to the last one', async () => {
    device.s3Proxy.fault = slowly(25 * MB);
    const uid = await device.tasks.beginPrefetch('large', 'middle');
    const seen = await reports(device, uid);
    assertByBytes(seen, bytesOf('large', 'middle'));
    assert.ok(new Set(seen.map(({ bytes_done: bytes }) => bytes)).size > 5);
  });

  it('does what it can, and tells of each resource what became of it', async () => {
    const names = ['absent', 'small', 'only-small', 'middle', 'absent-too'];
    const task = await device.tasks.prefetch(...names);
    assert.deepEqual([task.status, task.code], ['failed', 'prefetch_incomplete']);
    assert.match(
      task.error ?? '',
      /^3 of 5 could not be fetched\. models\/absent: The Resource API at \S+ has no file /,
    );
    assert.deepEqual(outcomes(task), [
      ['absent', 'failed', 'resource_not_in_api'],
      ['small', 'fetched', null],
      ['only-small', 'failed', 'resource_not_in_cdn'],
      ['middle', 'fetched', null],
      ['absent-too', 'failed', 'resource_not_in_api'],
    ]);
    const { resources } = task.result as PrefetchResult;
    for (const { error, bytes, status } of resources) {
      assert.deepEqual([typeof error === 'string', bytes === 0], [status === 'failed', status === 'failed']);
    }
    assert.equal(task.bytes_done, bytesOf('small', 'middle'));
    for (const name of ['small', 'middle']) assert.equal(await assertLoads(device, name, contentOf(name)), 0);
  });

  it('fetches nothing that is in the cache, and what is named twice once', async () => {
    await device.tasks.prefetch('middle');
    const before = device.s3Proxy.requests.length;
    const task = await device.tasks.prefetch('middle', 'middle', 'middle');
    assert.deepEqual([task.status, outcomes(task)], ['complete', [['middle', 'cached', null]]]);
    assert.equal(device.s3Proxy.requests.length, before, 'the CDN was asked');
    const mixed = await device.tasks.prefetch('other', 'middle', 'other');
    assert.deepEqual(outcomes(mixed), [
      ['other', 'fetched', null],
      ['middle', 'cached', null],
    ]);
    assert.deepEqual([mixed.bytes_done, mixed.bytes_total], [bytesOf('other'), bytesOf('other')]);
    assert.equal(device.s3Proxy.requests.filter(isRange).length, 2);
  });

  it('takes names and folders of any kind', async () => {
    const content = randomBytes(40_000);
    const resources = [
      { folder: 'a/b c/d', filename: 'modèle №1 (ü).bin' },
      { folder: 'models', filename: 'x'.repeat(249) },
    ];
    for (const { folder, filename } of resources) await device.upload(filename, content, folder);
    await device.clearCache();
    const task = await device.tasks.run('prefetch', { resources });
    assert.deepEqual(
      outcomes(task),
      resources.map(({ filename }) => [filename, 'fetched', null]),
    );
    const before = device.s3Proxy.requests.length;
    for (const { folder, filename } of resources) {
      assert.equal((await digestBody(await device.loader.load(filename, folder))).sha256, sha256(content));
    }
    assert.equal(device.s3Proxy.requests.length, before);
  });

  it('goes on with the rest when the CDN fails for one, and leaves nothing of that', async () => {
    device.s3Proxy.fault = (request) => {
      if (!isRange(request)) return PASS;
      // After a good part of it.
      if (request.headers.range?.startsWith('bytes=16777216') === true) {
        return { kind: 'hold', until: sleep(400), answer: { status: 403, body: '<Error/>' } };
      }
      return { kind: 'throttle', bytesPerSecond: 25 * MB };
    };
    const uid = await device.tasks.beginPrefetch('large', 'middle');
    assertNeverBack(await reports(device, uid));
    const task = await device.tasks.details(uid);
    assert.deepEqual(outcomes(task), [
      ['large', 'failed', 'cdn_access_denied'],
      ['middle', 'fetched', null],
    ]);
    assert.equal(await exists(device.bigPath('large')), false);
    await device.settled();
  });

  it('fetches the successor of what another device replaces while it is on its way', async () => {
    const successor = randomBytes(9 * MB + 2);
    await device.upload('replaced', randomBytes(9 * MB + 1));
    await device.clearCache();
    const gate = Promise.withResolvers<undefined>();
    let held = 0;
    device.s3Proxy.fault = ({ headers }) =>
      headers.range?.startsWith('bytes=8388608') === true && held++ === 0
        ? { kind: 'hold', until: gate.promise }
        : PASS;
    const uid = await device.tasks.beginPrefetch('replaced');
    const watching = reports(device, uid);
    await eventually(async () => (await device.tasks.details(uid)).bytes_done === 8_388_608);
    const env = { RESOURCE_API_URL: device.apiProxy.url, MODEL_CACHE_DIR: path.join(device.folder, 'other') };
    const other = await TestLoader.start({ env });
    try {
      assert.equal((await other.login(device.email, device.password)).status, 200);
      assert.equal((await other.upload('replaced', successor)).status, 200);
    } finally {
      await other.stop('SIGKILL');
    }
    gate.resolve(undefined);
    assertNeverBack(await watching);
    const task = await device.tasks.details(uid);
    assert.deepEqual([task.status, outcomes(task)], ['complete', [['replaced', 'fetched', null]]]);
    assert.equal(await assertLoads(device, 'replaced', successor), 0);
  });

  it('shares the transfer with a load of the same resource, whichever came first', async () => {
    for (const first of ['load', 'prefetch'] as const) {
      await device.clearCache();
      device.heal();
      device.s3Proxy.fault = slowly(15 * MB);
      const begin = {
        load: async () => digestBody(await device.loader.load('large')),
        prefetch: async () => device.tasks.prefetch('large'),
      };
      let loading = first === 'load' ? begin.load() : undefined;
      const prefetching = loading === undefined ? begin.prefetch() : eventually(anyRange).then(begin.prefetch);
      await eventually(anyRange);
      loading ??= begin.load();
      assert.deepEqual(outcomes(await prefetching), [['large', 'fetched', null]]);
      assert.equal((await loading).sha256, sha256(contentOf('large')));
      assert.equal(device.s3Proxy.requests.filter(isRange).length, 3, `after ${first}: it was fetched twice`);
    }
  });

  const anyRange = () => device.s3Proxy.requests.some(isRange);

  const STALLS: readonly (readonly [string, () => void, () => boolean])[] = [
    [
      'the Resource API answers nothing',
      () => (device.apiProxy.fault = () => ({ kind: 'never-answer' })),
      () => device.apiProxy.openRequests > 0,
    ],
    [
      'the CDN answers nothing',
      () => (device.s3Proxy.fault = () => ({ kind: 'never-answer' })),
      () => device.s3Proxy.openRequests > 0,
    ],
    [
      'the CDN stops in the middle',
      () => (device.s3Proxy.fault = (request) => (isRange(request) ? { kind: 'silence', afterBytes: 2 * MB } : PASS)),
      anyRange,
    ],
    ['the CDN is slow', () => (device.s3Proxy.fault = slowly(MB)), anyRange],
    [
      'the CDN refuses and is asked again',
      // An answer that leaves its connection open for the next request would be no trace.
      () => (device.s3Proxy.fault = () => ({ ...SLOW_DOWN, headers: { connection: 'close' } })),
      () => device.s3Proxy.requests.length > 0,
    ],
  ];
  for (const [what, hurt, isHurt] of STALLS) {
    it(`is cancelled within a second, without a trace, while ${what}`, async () => {
      await device.tasks.prefetch(...contents.keys()); // Connections that are kept for the next ones.
      await device.clearCache();
      const before = device.s3Proxy.openConnections;
      hurt();
      const uid = await device.tasks.beginPrefetch('large', 'middle', 'other', 'small');
      await eventually(isHurt);
      await sleep(150);
      await cancelWithinASecond(uid);
      await assertNothingIsLeft(before);
      await sleep(300);
      await assertNothingIsLeft(before);
      device.heal();
      assert.ok((await assertLoads(device, 'middle', contentOf('middle'))) > 0);
    });
  }

  it('is cancelled within a second while a load goes on with the same transfer, which is whole', async () => {
    device.s3Proxy.fault = slowly(4 * MB);
    const loading = device.loader.load('large').then(digestBody);
    await eventually(anyRange);
    const uid = await device.tasks.beginPrefetch('large');
    await eventually(async () => (await device.tasks.details(uid)).bytes_done > 0);
    await cancelWithinASecond(uid);
    assert.equal((await loading).sha256, sha256(contentOf('large')));
    await device.settled();
    assert.equal(await assertLoads(device, 'large', contentOf('large')), 0);
  });

  it('is cancelled within a second while an upload of the same resource hangs', async () => {
    const content = randomBytes(MB + 3);
    await device.upload('contested', content);
    await device.clearCache();
    const gate = Promise.withResolvers<undefined>();
    let isStoring = false;
    device.apiProxy.fault = (request) => {
      if (request.method !== 'POST' || /login|get/.test(request.url)) return PASS;
      isStoring = true;
      return { kind: 'hold', until: gate.promise };
    };
    const uploading = device.upload('contested', content);
    try {
      await eventually(() => isStoring);
      const uid = await device.tasks.beginPrefetch('contested');
      await sleep(50);
      await cancelWithinASecond(uid);
    } finally {
      gate.resolve(undefined);
      await uploading;
    }
  });

  it('leaves nothing when it is cancelled at any moment', async () => {
    for (let round = 0; round < 5; round++) {
      const uid = await device.tasks.beginPrefetch('large', 'middle', 'other');
      await sleep(round * 20);
      const { status, result } = await device.tasks.cancel(uid);
      await eventually(async () => (await device.unfinishedFiles()).length === 0, { timeoutMs: 500 });
      await assertNoRequests();
      if (status === 'cancelled') assert.equal(result, null);
      // What was published before is whole.
      for (const name of ['large', 'middle', 'other']) await assertLoads(device, name, contentOf(name));
      await device.clearCache();
    }
  });

  it('tells of each resource that the cache could not be written', async () => {
    await device.settled();
    await rm(device.cacheFolder, { recursive: true, force: true });
    await writeFile(device.cacheFolder, 'no folder');
    try {
      const task = await device.tasks.prefetch('middle', 'large', 'absent');
      assert.deepEqual([task.status, task.code], ['failed', 'prefetch_incomplete']);
      assert.deepEqual(outcomes(task), [
        ['middle', 'failed', 'cache_unusable'],
        ['large', 'failed', 'cache_unusable'],
        ['absent', 'failed', 'resource_not_in_api'],
      ]);
      // Loads do without.
      await assertLoads(device, 'middle', contentOf('middle'));
    } finally {
      await rm(device.cacheFolder);
    }
  });

  const mountSkip = process.getuid?.() === 0 ? false : 'it needs root, to mount a small file system';
  it('tells which did not find room, and keeps those that did', { skip: mountSkip }, async () => {
    await device.settled();
    await mkdir(device.cacheFolder, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', device.cacheFolder]);
    device.s3Proxy.fault = (request) =>
      isRange(request) && request.url.includes('large')
        ? { kind: 'hold', until: eventually(() => exists(device.bigPath('small'))) }
        : PASS;
    try {
      const task = await device.tasks.prefetch('large', 'small');
      assert.deepEqual(outcomes(task), [
        ['large', 'failed', 'disk_full_ahead'],
        ['small', 'fetched', null],
      ]);
      await device.settled();
      assert.equal(await assertLoads(device, 'small', contentOf('small')), 0);
    } finally {
      execFileSync('umount', ['-l', device.cacheFolder]);
    }
  });

  it('fails at once when nobody is logged in', async () => {
    await device.restartLoader();
    const task = await device.tasks.prefetch('small');
    assert.deepEqual([task.status, task.code, task.result], ['failed', 'not_authenticated', null]);
    await device.login();
  });

  it('begins again after kill -9, waits for the first login, and completes then', async () => {
    device.s3Proxy.fault = slowly(2 * MB);
    const uid = await device.tasks.beginPrefetch('large', 'middle');
    await eventually(async () => (await device.tasks.details(uid)).bytes_done > 0);
    await device.loader.stop('SIGKILL');
    assert.ok((await device.unfinishedFiles()).length > 0);
    device.heal();
    await device.startLoader();
    const before = await device.tasks.details(uid);
    assert.deepEqual([before.status, before.code], ['interrupted', 'task_interrupted']);
    assert.deepEqual(await device.unfinishedFiles(), []);
    const [again, ...others] = Object.values(await device.tasks.list());
    assert.deepEqual([others, again?.provider, again?.status], [[], 'prefetch', 'in_progress']);
    const { attempt, retry_of: retryOf, parameters } = await device.tasks.details(again?.uid ?? '');
    assert.deepEqual([attempt, retryOf, parameters], [2, uid, before.parameters]);
    await eventually(async () => (await device.tasks.lines(again?.uid ?? '')).length > 0);
    assert.match((await device.tasks.lines(again?.uid ?? ''))[0]?.text ?? '', /Waiting for the first login/);
    let hasLogin = false;
    const hadLogin: boolean[] = [];
    device.s3Proxy.fault = () => {
      hadLogin.push(hasLogin);
      return PASS;
    };
    assert.equal(device.s3Proxy.requests.length, 0);
    hasLogin = true;
    await device.login();
    const task = await device.tasks.ended(again?.uid ?? '');
    assert.ok(hadLogin.length > 0 && !hadLogin.includes(false), 'the CDN was asked before the login');
    assert.deepEqual([task.status, task.attempt], ['complete', 2]);
    assert.deepEqual(
      outcomes(task).map(([, status]) => status),
      ['fetched', 'fetched'],
    );
    assert.equal(await assertLoads(device, 'large', contentOf('large')), 0);
    await device.restartLoader();
    assert.deepEqual(await device.tasks.list(), {}, 'it was begun a third time');
    await device.login();
  });

  it('can be cancelled while it waits for the first login', async () => {
    device.s3Proxy.fault = () => ({ kind: 'never-answer' });
    await device.tasks.beginPrefetch('small');
    await device.restartLoader('SIGTERM');
    const [again] = Object.values(await device.tasks.list());
    await cancelWithinASecond(again?.uid ?? '');
    await device.restartLoader();
    assert.deepEqual(await device.tasks.list(), {});
    await device.login();
  });

  it('gives up what dies with the Loader ten times, but not what is only stopped with it', async () => {
    device.s3Proxy.fault = () => ({ kind: 'never-answer' });
    const first = await device.tasks.beginPrefetch('small');
    await device.restartLoader('SIGTERM');
    await device.loader.stop('SIGKILL');
    const database = new DatabaseSync(path.join(device.stateFolder, 'tasks.db'));
    const attempts = database
      .prepare("SELECT attempt FROM tasks WHERE retry_of = ? AND status = 'in_progress'")
      .all(first);
    assert.deepEqual(
      attempts.map(({ attempt }) => attempt),
      [1],
    );
    database.prepare("UPDATE tasks SET attempt = 9 WHERE status = 'in_progress'").run();
    database.close();
    await device.startLoader();
    await device.restartLoader('SIGKILL');
    assert.deepEqual(await device.tasks.list(), {});
    const [last, ninth, oldest] = (await device.tasks.history('?limit=3')).tasks;
    assert.deepEqual([last?.attempt, ninth?.attempt, oldest?.attempt], [10, 9, 1]);
    assert.deepEqual([last?.retry_of, ninth?.retry_of, oldest?.uid], [ninth?.uid, oldest?.uid, first]);
    assert.deepEqual(
      [last, ninth, oldest].map((task) => task?.status),
      ['interrupted', 'interrupted', 'interrupted'],
    );
    await device.login();
  });
});

describe('a verify', { skip: S3_SKIP }, () => {
  let device: Device;
  const contents = new Map(['one', 'two', 'three'].map((name, index) => [name, randomBytes((9 + index) * MB + 1)]));
  const names = [...contents.keys()];
  const total = [...contents.values()].reduce((sum, { length }) => sum + bigLength(length), 0);

  before(async () => {
    device = await Device.start({ env: { API_KEY: newApiKey(), ...ENV } });
    await device.login();
    for (const [name, content] of contents) await device.upload(name, new Uint8Array(content));
  });

  beforeEach(async () => {
    device.heal();
    const { status } = await device.tasks.prefetch(...names);
    assert.equal(status, 'complete');
    await device.tasks.run('verify'); // Mends what the test before has left.
    device.heal();
  });

  after(() => device.stop());

  const GOOD = { good: 3, recorded: 0, bad: 0, unproven: 0, absent: 0, failed: 0, bytes: total, bad_copies: [] };
  const digestOf = async (name: string) => sha256(await readFile(device.bigPath(name)));

  it('finds good what is good, reading all of it and asking nobody', async () => {
    const uid = await device.tasks.begin('verify');
    const seen = await reports(device, uid);
    const task = await device.tasks.details(uid);
    assert.deepEqual([task.status, task.result], ['complete', GOOD]);
    assertByBytes(seen, total);
    assert.deepEqual([device.s3Proxy.requests.length, device.apiProxy.requests.length], [0, 0]);
  });

  for (const [where, position] of [
    ['first', () => 0],
    ['middle', () => Math.floor(total / 6)],
    ['last', (length: number) => length - 1],
  ] as const) {
    it(`finds a flipped bit in the ${where} byte, and fetches that chunk again, alone`, async () => {
      const big = device.bigPath('two');
      const good = await digestOf('two');
      const { size } = await stat(big);
      await flipBit(big, position(size));
      const task = await device.tasks.run('verify');
      assert.equal(task.status, 'complete');
      const { bytes, ...result } = task.result as { bytes: number };
      const badCopy = { folder: 'models', file: 'two.big', mended: true, error: null, code: null };
      assert.deepEqual(result, {
        good: 2,
        recorded: 0,
        bad: 1,
        unproven: 0,
        absent: 0,
        failed: 0,
        bad_copies: [badCopy],
      });
      assert.equal(bytes, total);
      assert.equal(await digestOf('two'), good);
      assert.equal(device.s3Proxy.requests.filter(isRange).length, 1);
      device.heal();
      assert.deepEqual((await device.tasks.run('verify')).result, GOOD);
      assert.equal(await assertLoads(device, 'two', contents.get('two') ?? Buffer.alloc(0)), 1 - 1);
      await device.settled();
    });
  }

  it('finds a copy that was cut short', async () => {
    await truncate(device.bigPath('two'), 1000);
    const { result } = await device.tasks.run('verify');
    const {
      bad,
      good,
      bad_copies: badCopies,
    } = result as { bad: number; good: number; bad_copies: { mended: boolean }[] };
    assert.deepEqual([good, bad, badCopies.map(({ mended }) => mended)], [2, 1, [true]]);
    assert.equal((await stat(device.bigPath('two'))).size, bigLength(10 * MB + 1));
  });

  it('leaves a damaged copy where nobody is logged in; the next load mends it', async () => {
    await device.restartLoader();
    await flipBit(device.bigPath('two'), 5 * MB);
    const { status, result } = await device.tasks.run('verify');
    const { bad_copies: badCopies, bad } = result as { bad: number; bad_copies: object[] };
    assert.deepEqual([status, bad], ['complete', 1]);
    const error = 'No user is logged in: POST /login first.';
    assert.deepEqual(badCopies, [
      { folder: 'models', file: 'two.big', mended: false, error, code: 'not_authenticated' },
    ]);
    assert.equal(await exists(device.bigPath('two')), true);
    await device.login();
    assert.ok((await assertLoads(device, 'two', contents.get('two') ?? Buffer.alloc(0))) > 0);
  });

  it('tells why a bad copy was not fetched again', async () => {
    await flipBit(device.bigPath('two'), 5 * MB);
    device.s3Proxy.fault = () => ({ kind: 'answer', status: 403, body: '<Error/>' });
    const { status, result } = await device.tasks.run('verify');
    const [copy] = (result as { bad_copies: { mended: boolean; code: string; error: string }[] }).bad_copies;
    assert.deepEqual([status, copy?.mended, copy?.code], ['complete', false, 'cdn_access_denied']);
    assert.notEqual(copy?.error ?? '', '');
    await device.settled();
  });

  it('records the digests of copies that have none, and finds them bad from then on', async () => {
    await rm(`${device.bigPath('one')}.dsse`);
    const first = (await device.tasks.run('verify')).result;
    assert.deepEqual(first, { ...GOOD, good: 2, recorded: 1 });
    assert.deepEqual((await device.tasks.run('verify')).result, GOOD);
    await flipBit(device.bigPath('one'), 6 * MB);
    const { bad } = (await device.tasks.run('verify')).result as { bad: number };
    assert.equal(bad, 1);
  });

  it('has nothing to do in an empty cache', async () => {
    await device.clearCache();
    const { status, result } = await device.tasks.run('verify');
    assert.deepEqual([status, result], ['complete', { ...GOOD, good: 0, bytes: 0 }]);
  });

  it('is cancelled within a second, also while it fetches a copy again', async () => {
    await flipBit(device.bigPath('two'), 5 * MB);
    const before = device.s3Proxy.openConnections;
    device.s3Proxy.fault = (request) => (isRange(request) ? { kind: 'silence', afterBytes: MB } : PASS);
    const uid = await device.tasks.begin('verify');
    await eventually(() => device.s3Proxy.requests.some(isRange));
    await sleep(50);
    const startedAt = performance.now();
    const task = await device.tasks.cancel(uid);
    assert.ok(performance.now() - startedAt < 1000);
    assert.deepEqual([task.status, task.code], ['cancelled', 'task_cancelled']);
    await eventually(() => device.s3Proxy.openRequests === 0 && device.s3Proxy.openConnections <= before + 1, {
      timeoutMs: 100,
    });
    assert.deepEqual(await device.unfinishedFiles(), []);
    assert.deepEqual(device.loader.openFilesUnder(device.cacheFolder), []);
  });

  it('is cancelled while it reads', async () => {
    const statuses = new Set<string>();
    for (let round = 0; round < 6; round++) {
      const uid = await device.tasks.begin('verify');
      await sleep(round);
      const task = await device.tasks.cancel(uid);
      statuses.add(task.status);
      if (task.status === 'cancelled') assert.ok(task.progress < 100 && task.bytes_done < total);
      assert.deepEqual(device.loader.openFilesUnder(device.cacheFolder), []);
    }
    assert.ok(statuses.has('cancelled'), [...statuses].join(', '));
    assert.deepEqual((await device.tasks.run('verify')).result, GOOD);
  });
});

describe('an evict', { skip: S3_SKIP }, () => {
  let device: Device;
  /** The oldest first: loaded 30, 20, 10 and 0 days ago. */
  const contents = new Map(['oldest', 'older', 'old', 'new'].map((name, i) => [name, randomBytes((i + 1) * MB + 1)]));
  const large = randomBytes(30 * MB + 1);
  const sizeOf = (name: string) => bigLength(contents.get(name)?.length ?? 0);
  const total = [...contents.keys()].reduce((sum, name) => sum + sizeOf(name), 0);

  before(async () => {
    device = await Device.start({ env: { API_KEY: newApiKey(), ...ENV } });
    await device.login();
    for (const [name, content] of contents) await device.upload(name, new Uint8Array(content));
    await device.upload('large', large);
  });

  beforeEach(async () => {
    device.heal();
    await device.clearCache();
    await device.tasks.prefetch(...contents.keys());
    for (const [index, name] of [...contents.keys()].entries()) await setAge(name, 30 - 10 * index);
  });

  afterEach(() => device.heal());

  after(() => device.stop());

  async function setAge(name: string, days: number, suffix = ''): Promise<void> {
    const seconds = (Date.now() - days * DAY_MS) / 1000;
    await utimes(device.bigPath(name) + suffix, seconds, seconds);
  }

  interface EvictResult {
    readonly files_removed: number;
    readonly bytes_removed: number;
    readonly bytes_left: number;
    readonly files_held: number;
    readonly removed: readonly { readonly folder: string; readonly file: string; readonly bytes: number }[];
  }

  async function evict(limits: object): Promise<EvictResult> {
    const { status, progress, result } = await device.tasks.run('evict', limits);
    assert.deepEqual([status, progress], ['complete', 100]);
    return result as EvictResult;
  }

  /** These were removed, in this order and with all that belongs to them; the others are whole. */
  async function assertRemoved(result: EvictResult, ...removed: readonly string[]): Promise<void> {
    assert.deepEqual(
      result.removed.map(({ folder, file, bytes }) => [folder, file, bytes]),
      removed.map((name) => ['models', `${name}.big`, sizeOf(name)]),
    );
    const left = [...contents.keys()].filter((name) => !removed.includes(name));
    const bytesRemoved = removed.reduce((sum, name) => sum + sizeOf(name), 0);
    const { files_removed: files, bytes_removed: bytes, bytes_left: bytesLeft } = result;
    assert.deepEqual([files, bytes, bytesLeft], [removed.length, bytesRemoved, total - bytesRemoved]);
    const expected = left.flatMap((name) => [`${name}.big`, `${name}.big.dsse`]);
    assert.deepEqual((await readdir(path.join(device.cacheFolder, 'models'))).sort(), expected.sort());
    for (const name of left) assert.equal((await stat(device.bigPath(name))).size, sizeOf(name));
  }

  it('removes what was not loaded for so many days', async () => {
    await assertRemoved(await evict({ max_age_days: 19.9 }), 'oldest', 'older');
    // What was removed is fetched again by whoever wants it.
    assert.ok((await assertLoads(device, 'oldest', contents.get('oldest') ?? Buffer.alloc(0))) > 0);
  });

  it('removes the oldest until the rest is within a number of bytes, and no more', async () => {
    await assertRemoved(await evict({ max_bytes: total }));
    await assertRemoved(await evict({ max_bytes: total - 1 }), 'oldest');
  });

  it('removes as many as it takes, to the last', async () => {
    await assertRemoved(await evict({ max_bytes: sizeOf('new') + sizeOf('old') }), 'oldest', 'older');
    const { removed, bytes_left: bytesLeft } = await evict({ max_bytes: 0 });
    assert.deepEqual([removed.map(({ file }) => file), bytesLeft], [['old.big', 'new.big'], 0]);
    assert.deepEqual(await readdir(path.join(device.cacheFolder, 'models')), []);
  });

  it('goes by both limits where both are given', async () => {
    await assertRemoved(await evict({ max_age_days: 25, max_bytes: total - sizeOf('oldest') }), 'oldest');
    for (const name of ['older', 'old', 'new']) await setAge(name, 1);
  });

  it('goes on to the number of bytes where the days alone leave too much', async () => {
    await assertRemoved(await evict({ max_age_days: 25, max_bytes: sizeOf('new') }), 'oldest', 'older', 'old');
  });

  it('removes what was set aside first, however new it is', async () => {
    await writeFile(`${device.bigPath('new')}.bad`, Buffer.alloc(5000));
    const result = await evict({ max_bytes: total });
    assert.deepEqual(
      result.removed.map(({ file }) => file),
      ['new.big.bad'],
    );
    assert.deepEqual([result.bytes_left, result.files_removed], [total, 1]);
    await assertRemoved(await evict({ max_bytes: total }));
  });

  it('leaves what is loaded now and then', async () => {
    assert.equal(await assertLoads(device, 'oldest', contents.get('oldest') ?? Buffer.alloc(0)), 0);
    await assertRemoved(await evict({ max_age_days: 15 }), 'older');
  });

  it('leaves files that are none of its own', async () => {
    const foreign = path.join(device.cacheFolder, 'models', 'notes.txt');
    const unfinished = path.join(device.cacheFolder, '.parts', 'some.part');
    await writeFile(foreign, 'x'.repeat(100));
    await writeFile(unfinished, 'x'.repeat(100));
    const { files_removed: files } = await evict({ max_bytes: 0 });
    assert.equal(files, 4);
    assert.deepEqual([await exists(foreign), await exists(unfinished)], [true, true]);
    await rm(foreign);
    await rm(unfinished);
  });

  it('leaves what a slow client is just reading, which gets all of it', async () => {
    await device.tasks.prefetch('large');
    await setAge('large', 50);
    const response = await device.loader.load('large'); // Whose body nobody reads for now.
    await eventually(() => device.loader.openFilesUnder(device.bigPath('large')).length > 0);
    // The load has marked it as new. Only that somebody reads it keeps it.
    await setAge('large', 50);
    const result = await evict({ max_age_days: 15, max_bytes: 0 });
    assert.equal(result.files_held, 1);
    assert.deepEqual(
      result.removed.map(({ file }) => file),
      ['oldest.big', 'older.big', 'old.big', 'new.big'],
    );
    assert.equal(result.bytes_left, bigLength(large.length));
    assert.equal(await exists(device.bigPath('large')), true);
    assert.equal((await digestBody(response)).sha256, sha256(large));
    await eventually(() => device.loader.openFilesUnder(device.bigPath('large')).length === 0);
    const { removed } = await evict({ max_bytes: 0 });
    assert.deepEqual(
      removed.map(({ file }) => file),
      ['large.big'],
    );
  });

  it('leaves what is just being fetched', async () => {
    const gate = Promise.withResolvers<undefined>();
    device.s3Proxy.fault = (request) => (isRange(request) ? { kind: 'hold', until: gate.promise } : PASS);
    const uid = await device.tasks.beginPrefetch('large');
    const loading = device.loader.load('large').then(digestBody);
    await eventually(() => device.s3Proxy.requests.some(isRange));
    const result = await evict({ max_bytes: 0 });
    assert.deepEqual([result.files_removed, result.files_held], [4, 0]);
    gate.resolve(undefined);
    assert.equal((await device.tasks.ended(uid)).status, 'complete');
    assert.equal((await loading).sha256, sha256(large));
    assert.equal((await stat(device.bigPath('large'))).size, bigLength(large.length));
  });

  it('breaks no load that comes at the same time', async () => {
    for (let round = 0; round < 5; round++) {
      const loads = [...contents].map(async ([name, content]) => {
        await sleep(round * 3);
        await assertLoads(device, name, content);
      });
      await Promise.all([evict({ max_bytes: 0 }), ...loads]);
    }
    await device.settled();
  });

  it('has nothing to do in an empty cache, or where there is none', async () => {
    await device.clearCache();
    const nothing = { files_removed: 0, bytes_removed: 0, bytes_left: 0, files_held: 0, files_failed: 0, removed: [] };
    assert.deepEqual(await evict({ max_bytes: 0, max_age_days: 0 }), nothing);
    await mkdir(path.join(device.cacheFolder, 'models'), { recursive: true });
    assert.deepEqual(await evict({ max_age_days: 1 }), nothing);
  });

  it('is prefetched again after it', async () => {
    await evict({ max_bytes: 0 });
    const { result } = await device.tasks.run('prefetch', prefetchOf('new', 'old'));
    assert.deepEqual(
      (result as PrefetchResult).resources.map(({ status }) => status),
      ['fetched', 'fetched'],
    );
  });
});
