import assert from 'node:assert/strict';
import { randomBytes, randomInt, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, describe, it } from 'node:test';
import type { FastifyInstance } from 'fastify';
import { makeImage, makeLayer, saveImages, type Image } from '../../../lab/images/image-maker.ts';
import { DEMO_USER, Origin } from '../../../lab/upstream/origin.ts';
import { eventually } from '../../../lab/waiting.ts';
import { loadConfig } from '../../../src/config/config.ts';
import { buildApp } from '../../../src/http/app.ts';
import { KnownSecrets } from '../../../src/log/known-secrets.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { deriveArchiveAesKey } from '../../../src/security/key-derivation.ts';
import { createServices, type Services } from '../../../src/services.ts';
import { ScheduleStore } from '../../../src/tasks/schedule-store.ts';
import { openTaskDatabase } from '../../../src/tasks/task-database.ts';
import { TaskStore } from '../../../src/tasks/task-store.ts';
import { addEndedTask, DAY_MS, makeLine, makeLogger, makeTask } from '../../support/task-lab.ts';
import { makeRandom } from '../../../lab/seeded-random.ts';

/**
 * One bit is flipped in the local state of a Loader, as failing flash does, and the Loader is started upon it. All runs in
 * this process, beside stand-ins for Resource API, S3 store and engine, because a process for each flip would take hours.
 */

/** A run of the tests takes 40, the campaign (npm run test:flips) 2,000. A run can be repeated by its seed. */
const FLIPS = Number(process.env['LOADER_TEST_FLIPS'] ?? 40);
const SEED = Number(process.env['LOADER_TEST_FLIPS_SEED'] ?? randomInt(2 ** 31));
/** Shares of the flips. */
const SHARES = { anywhere: 0.45, text: 0.25, receipt: 0.15, record: 0.15 };
/** A flip takes up to half a second. */
const TIMEOUT = { timeout: 120_000 + FLIPS * 1_500 };
const API_KEY = 'key-of-the-flips';
const AUTHORIZATION = { authorization: `Bearer ${API_KEY}` };
const MODEL = randomBytes(300_000);
const TASKS = 40;
const SCHEDULES = 12;
const EVICT = { provider: 'evict', max_bytes: 1e12 };
const ASIDE = /^tasks\.db\.damaged-.*Z$/;

const random = makeRandom(SEED);

let root = '';
let template = '';
let origin: Origin;
let engine: Engine;
let images: readonly Image[] = [];
/** See `readTexts`. */
let texts: readonly string[] = [];
/** What the routes answer about the state as it was. */
let whole: StateView;

/** An engine that has all images, and refuses a name that is no reference, as Docker does. */
class Engine {
  readonly socketPath: string;
  readonly #server: Server;

  constructor(socketPath: string) {
    this.socketPath = socketPath;
    this.#server = createServer((request, response) => {
      const { status, body } = answerOf(request.url ?? '');
      response.writeHead(status, { 'content-type': 'application/json', 'api-version': '1.43' });
      if (request.url?.includes('/events') === true) response.flushHeaders();
      else response.end(JSON.stringify(body));
    });
  }

  async start(): Promise<void> {
    this.#server.listen(this.socketPath);
    await once(this.#server, 'listening');
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

function answerOf(url: string): { status: number; body: unknown } {
  const name = /\/images\/(.+)\/json$/.exec(url)?.[1];
  if (name === undefined) {
    const isList = url.includes('/images/json');
    return { status: 200, body: isList ? images.map(({ id }) => ({ Id: id })) : {} };
  }
  const sought = decodeURIComponent(name);
  if (!/^(sha256:[0-9a-f]{64}|[a-z0-9./_-]+:[\w.-]+)$/.test(sought)) {
    return { status: 400, body: { message: 'invalid reference format' } };
  }
  const image = images.find(({ id, tags }) => id === sought || tags.includes(sought));
  if (image === undefined) return { status: 404, body: { message: 'no such image' } };
  return { status: 200, body: { Id: image.id, RootFS: { Layers: image.diffIds } } };
}

/** A Loader in this process, upon the state in `folder`. */
class FlippedLoader implements AsyncDisposable {
  readonly logLines: readonly string[];
  readonly #app: FastifyInstance;
  readonly #services: Services;

  readonly #url: string;

  private constructor(app: FastifyInstance, services: Services, url: string, logLines: readonly string[]) {
    this.#app = app;
    this.#services = services;
    this.#url = url;
    this.logLines = logLines;
  }

  static async start(folder: string): Promise<FlippedLoader> {
    const config = loadConfig({
      API_KEY,
      RESOURCE_API_URL: origin.api.url,
      RESOURCE_KEY: origin.resourceKey,
      HARDWARE_ID: 'flips',
      MODEL_CACHE_DIR: path.join(folder, 'models'),
      STATE_DIR: path.join(folder, 'state'),
      IMAGES_PATH: path.join(root, 'images.enc'),
      DOCKER_HOST: `unix://${engine.socketPath}`,
    });
    const { logger, logLines } = makeLogger();
    const services = createServices(config, { logger, secrets: new KnownSecrets() });
    const { modelCacheDir, allowedHosts, clientStallTimeoutMs } = config;
    const app = await buildApp(services, { modelCacheDir, allowedHosts, clientStallTimeoutMs, logger });
    await services.cache.removeLeftovers();
    await services.tasks.start();
    const url = await app.listen({ host: '127.0.0.1', port: 0 });
    return new FlippedLoader(app, services, url, logLines);
  }

  async get(route: string): Promise<{ status: number; json: unknown }> {
    const response = await fetch(this.#url + route, { headers: AUTHORIZATION });
    return { status: response.status, json: await response.json() };
  }

  async post(route: string, value: object): Promise<{ status: number; bytes: Buffer }> {
    const headers = { ...AUTHORIZATION, 'content-type': 'application/json' };
    const response = await fetch(this.#url + route, { method: 'POST', headers, body: JSON.stringify(value) });
    return { status: response.status, bytes: Buffer.from(await response.arrayBuffer()) };
  }

  async delete(route: string): Promise<number> {
    return (await fetch(this.#url + route, { method: 'DELETE', headers: AUTHORIZATION })).status;
  }

  async upload(name: string, content: Buffer<ArrayBuffer>): Promise<void> {
    const body = new FormData();
    body.append('data', new Blob([content]), name);
    const response = await fetch(`${this.#url}/upload/${name}`, { method: 'POST', headers: AUTHORIZATION, body });
    assert.equal(response.status, 200, await response.text());
  }

  async login(): Promise<void> {
    assert.equal((await this.post('/login', { email: DEMO_USER.email, password: DEMO_USER.password })).status, 200);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const stopped = this.#services.tasks.stop();
    await this.#services.apiClient.stop(AbortSignal.timeout(5_000));
    await stopped;
    await this.#app.close();
    await this.#services.close();
  }
}

/** JSON of what the routes answer about each row, by its uid or id; a task with its log. */
type StateView = ReadonlyMap<string, string>;

/** @throws AssertionError when a route fails */
async function readState(loader: FlippedLoader): Promise<StateView> {
  const view = new Map<string, string>();
  const get = async (url: string) => {
    const { status, json } = await loader.get(url);
    assert.equal(status, 200, `${url}: ${JSON.stringify(json)}`);
    return json;
  };
  await get('/tasks');
  await get('/status');
  let url = '/tasks/history?limit=15';
  for (;;) {
    const page = (await get(url)) as { tasks: { uid: string }[]; next_cursor: string | null };
    for (const task of page.tasks) {
      // A damaged index may not have the uid of a damaged row.
      const { status, json } = await loader.get(`/tasks/${task.uid}/logs`);
      assert.equal(status, 200, JSON.stringify(json));
      view.set(task.uid, JSON.stringify([task, json]));
    }
    if (page.next_cursor === null) break;
    url = `/tasks/history?limit=15&cursor=${page.next_cursor}`;
  }
  const { schedules } = (await get('/schedules')) as { schedules: { id: string }[] };
  for (const schedule of schedules) view.set(schedule.id, JSON.stringify(schedule));
  return view;
}

/** What of `before` is missing in `now`, or different there. */
function lost(now: StateView): string[] {
  return [...whole].filter(([uid, json]) => now.get(uid) !== json).map(([uid]) => uid);
}

before(async () => {
  console.log(`Repeat it with LOADER_TEST_FLIPS_SEED=${SEED}`);
  root = await mkdtemp(path.join(tmpdir(), 'loader-flips-'));
  template = path.join(root, 'template');
  origin = await Origin.start({ folder: path.join(root, 'origin') });
  images = ['api', 'worker'].map((name) =>
    makeImage({ tags: [`azaion/${name}:1`, `azaion/${name}:latest`], layers: [makeLayer({ [name]: name })] }),
  );
  const key = deriveArchiveAesKey(origin.keyFragment);
  await writeFile(path.join(root, 'images.enc'), encryptBuffer(saveImages(images), key));
  engine = new Engine(path.join(root, 'engine.sock'));
  await engine.start();
  await makeTasks();
  {
    await using loader = await FlippedLoader.start(template);
    await loader.login();
    await loader.upload('m', MODEL);
    await eventually(() => templateFile('.big.dsse') !== undefined, { timeoutMs: 20_000 });
    await unlock(loader);
    whole = await readState(loader);
    assert.equal(whole.size, TASKS + SCHEDULES + 1, 'the unlock is a task too');
  }
  texts = readTexts();
  assert.ok(texts.length > TASKS);
});

after(async () => {
  await engine.stop();
  await origin.stop();
  await rm(root, { recursive: true, force: true });
});

async function makeTasks(): Promise<void> {
  const { logger } = makeLogger();
  const database = await openTaskDatabase(path.join(template, 'state'), logger);
  const store = new TaskStore({ database, logger, historyCount: 1_000, historyAgeMs: 90 * DAY_MS });
  for (let i = 0; i < TASKS; i++) {
    const uid = randomUUID();
    const createdAtMs = Date.now() - 1_000 * (TASKS - i);
    const parameters = { resources: [{ folder: 'models', filename: `model-${i}` }], text: 'x'.repeat(i * 10) };
    const task = { createdAtMs, parameters, result: { fetched: i, list: [1, 2.5, null, 'ä'] }, bytesDone: i * 1_000 };
    if (i % 3 === 0) store.insert(makeTask({ uid, provider: `p-${uid}`, ...task }));
    for (let line = 1; i % 3 === 0 && line < 6; line++) store.addLine(uid, makeLine(line));
    const failed = { status: 'failed', error: 'no connection', code: 'cdn_unreachable', retryOf: randomUUID() } as const;
    const ended = { ...task, finishedAtMs: createdAtMs + 500, ...(i % 2 === 0 && failed) };
    if (i % 3 === 0) store.finish({ ...makeTask({ uid, provider: `p-${uid}` }), ...ended, status: 'failed' }, null);
    else addEndedTask(store, uid, ended);
  }
  const schedules = new ScheduleStore(database, logger);
  for (let i = 0; i < SCHEDULES; i++) {
    const lastDue = { dueAtMs: Date.now() - DAY_MS, outcome: 'started', task: randomUUID(), reason: null } as const;
    schedules.save({
      id: randomUUID(),
      name: i % 2 === 0 ? `schedule ${i}` : null,
      provider: 'evict',
      parameters: { max_bytes: 1e12 + i },
      cron: '0 3 24 12 *',
      timezone: 'Europe/Kyiv',
      catchUp: i % 2 === 0,
      isPaused: i % 4 === 0,
      createdAtMs: Date.now() - 2 * DAY_MS,
      nextDueAtMs: Date.now() + 30 * DAY_MS,
      lastDue: i % 3 === 0 ? null : lastDue,
    });
  }
  database.close();
}

async function unlock(loader: FlippedLoader): Promise<void> {
  const { status, bytes } = await loader.post('/unlock', { email: DEMO_USER.email, password: DEMO_USER.password });
  assert.equal(status, 200, bytes.toString());
  await eventually(async () => {
    const { state, error } = (await loader.get('/unlock/status')).json as { state: string; error: string | null };
    assert.notEqual(state, 'error', String(error));
    return state === 'ready';
  });
}

/** A file of the template whose name ends so. */
function templateFile(end: string): string | undefined {
  return readdirSync(template, { recursive: true, encoding: 'utf8' }).find((name) => name.endsWith(end));
}

/** Flips the bit at a place that `choose` names, in a copy of the template, and returns the folder of that copy. */
async function flip(name: string, choose: (content: Buffer) => number): Promise<{ folder: string; what: string }> {
  const folder = path.join(root, randomUUID());
  await cp(template, folder, { recursive: true });
  const file = path.join(folder, name);
  const content = readFileSync(file);
  const position = choose(content);
  const bit = Math.floor(random() * 8);
  content[position] = (content[position] ?? 0) ^ (1 << bit);
  writeFileSync(file, content);
  return { folder, what: `bit ${bit} of byte ${position} of ${name}` };
}

function anywhere(content: Buffer): number {
  return Math.floor(random() * content.length);
}

/** A place within one of the JSON texts of the database. */
function inText(content: Buffer): number {
  const text = texts[Math.floor(random() * texts.length)] ?? '';
  return content.indexOf(text, 0, 'latin1') + Math.floor(random() * text.length);
}

/** The JSON texts of the template's database that are at one place in its file. */
function readTexts(): string[] {
  const file = path.join(template, 'state/tasks.db');
  const content = readFileSync(file, 'latin1');
  using database = new DatabaseSync(file, { readOnly: true });
  const rows = database.prepare('SELECT parameters AS a, result AS b FROM tasks UNION ALL SELECT parameters, last_run FROM schedules').all();
  const found = rows.flatMap((row) => Object.values(row).map((value) => Buffer.from(String(value)).toString('latin1')));
  return found.filter((text) => text.length > 4 && content.split(text).length === 2);
}

/** Runs `check` upon so many Loaders with this flip, one after the other. */
async function withFlip(
  name: string,
  choose: (content: Buffer) => number,
  check: (loader: FlippedLoader, folder: string, start: number) => Promise<void>,
  starts = 1,
): Promise<void> {
  const { folder, what } = await flip(name, choose);
  try {
    for (let start = 1; start <= starts; start++) {
      await using loader = await FlippedLoader.start(folder);
      await check(loader, folder, start);
    }
  } catch (error) {
    throw new Error(`${what}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  } finally {
    // The digests of a new copy may still be made.
    await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 20 });
  }
}

function countOf(share: keyof typeof SHARES): number {
  return Math.ceil(FLIPS * SHARES[share]);
}

describe("one flipped bit in the tasks' database", () => {
  for (const [share, choose, mayBeSetAside] of [
    ['text', inText, false],
    ['anywhere', anywhere, true],
  ] as const) {
    it(`costs ${mayBeSetAside ? 'a row, or sets the file aside' : 'a row at most, within a text'}: ${countOf(share)} flips`, TIMEOUT, async () => {
      const counts = { nothing: 0, row: 0, file: 0 };
      for (let i = 0; i < countOf(share); i++) {
        await withFlip('state/tasks.db', choose, async (loader, folder, start) => {
          const now = await readState(loader);
          const missing = lost(now);
          const aside = readdirSync(path.join(folder, 'state')).filter((name) => ASIDE.test(name));
          if (aside.length > 0) {
            assert.ok(mayBeSetAside, 'the file was set aside');
            assert.equal(aside.length, 1);
            if (start === 1) assert.match(loader.logLines.join(''), /is damaged: it was set aside/);
          } else {
            assert.ok(missing.length <= 1, `${missing.length} rows are lost`);
            if (start === 1 && !mayBeSetAside && now.size < whole.size) {
              assert.match(loader.logLines.join(''), /Damaged rows of the tasks' database were removed/);
            }
          }
          if (start === 1) counts[aside.length > 0 ? 'file' : missing.length > 0 ? 'row' : 'nothing']++;
          // What was mended stays so.
          if (start === 2) assert.doesNotMatch(loader.logLines.join(''), /amaged/);
          await assertTasksWork(loader);
        }, 2);
      }
      console.log(share, counts);
    });
  }
});

async function assertTasksWork(loader: FlippedLoader): Promise<void> {
  const { status, bytes } = await loader.post('/', EVICT);
  assert.equal(status, 200, bytes.toString());
  const { uid } = JSON.parse(bytes.toString()) as { uid: string };
  await eventually(
    async () => ((await loader.get(`/tasks/${uid}`)).json as { status: string }).status === 'complete',
  );
  const created = await loader.post('/schedules', { provider: 'evict', parameters: { max_bytes: 1 }, cron: '0 3 * * *' });
  assert.equal(created.status, 200, created.bytes.toString());
  const { id } = JSON.parse(created.bytes.toString()) as { id: string };
  assert.equal(await loader.delete(`/schedules/${id}`), 200);
}

it(`one flipped bit in the receipt costs an unlock at most: ${countOf('receipt')} flips`, TIMEOUT, async () => {
  for (let i = 0; i < countOf('receipt'); i++) {
    await withFlip('state/unlock-receipt.json', anywhere, async (loader) => {
      await unlock(loader);
    });
  }
});

it(`one flipped bit beside a copy of the cache costs a load from the CDN at most: ${countOf('record')} flips`, TIMEOUT, async () => {
  for (let i = 0; i < countOf('record'); i++) {
    const name = templateFile('.big.dsse') ?? '';
    await withFlip(name, anywhere, async (loader) => {
      await loader.login();
      const { status, bytes } = await loader.post('/load/m', { filename: 'm', folder: 'models' });
      assert.equal(status, 200, bytes.toString('utf8', 0, 200));
      assert.ok(bytes.equals(MODEL));
      assert.equal((await loader.post('/', { provider: 'verify' })).status, 200);
    });
  }
});
