import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { bodyOf } from '../../../lab/json-answer.ts';
import { LoaderClient } from '../../../lab/loader-client.ts';
import { readMemory, readOpenFiles } from '../../../lab/proc.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';
import { prefetchOf, TaskClient } from '../../../lab/task-client.ts';
import { DEMO_USER, Origin } from '../../../lab/upstream/origin.ts';
import { eventually } from '../../../lab/waiting.ts';
import { newApiKey, TestLoader } from '../../support/test-loader.ts';

/**
 * Sixteen clients do all that a Loader is for, at the same time and for long. Every answer must be right, and the Loader
 * must end with the handles and the memory that it had when it was warm.
 */

/** A run of the tests takes a few seconds, the campaign (npm run test:soak) 60 minutes. */
const MINUTES = Number(process.env['LOADER_TEST_SOAK_MINUTES'] ?? 0.1);
const RUN_MS = MINUTES * 60_000;
/** From so many on, the memory has come to rest in the second sixth of the run. */
const IS_LONG = MINUTES >= 30;
const PHASES = 6;
/** The mean memory of the last sixth, as a multiple of that of the second one. */
const MAX_MEMORY = 1.05;
const SAMPLE_MS = 1_000;
/** A short run makes short pauses; a long one leaves most of the machine to others. */
const PACE = IS_LONG ? 1 : 0.05;
/** For how long the handles must stay the same to be at rest. An idle connection stays open for 72 s. */
const REST_MS = IS_LONG ? 80_000 : 1_000;
const MAX_LENGTH = 9_000_000;
const NAMES = ['one', 'two', 'three', 'four'];
const MAX_FAILURES_SHOWN = 10;

/** The versions of one resource, which has one uploader. */
class Versions {
  readonly name: string;
  readonly #digests: string[] = [];
  #standing = -1;

  constructor(name: string) {
    this.name = name;
  }

  /** Uploads another version, which stands when this returns. */
  async upload(loader: LoaderClient): Promise<void> {
    const content = makeContent();
    const number = this.#digests.push(sha256(content)) - 1;
    bodyOf(await loader.upload(this.name, content));
    this.#standing = number;
  }

  /** Loads a version, which must be the present one or one that comes meanwhile. */
  async load(loader: LoaderClient): Promise<void> {
    const oldest = this.#standing;
    const response = await loader.load(this.name);
    if (response.status !== 200) bodyOf(await loader.readJson(response));
    const number = this.#digests.lastIndexOf((await digestBody(response)).sha256);
    assert.ok(number >= oldest, `${this.name}: version ${number} was served when ${oldest} stood`);
  }
}

const POOL = randomBytes(MAX_LENGTH);

/** A few bytes, or several parts. */
function makeContent(): Buffer<ArrayBuffer> {
  const content = Buffer.from(POOL.subarray(0, randomInt(1, 4) === 1 ? randomInt(MAX_LENGTH) : randomInt(500_000)));
  return Buffer.concat([randomBytes(16), content]);
}

describe('a Loader that works for long', { timeout: RUN_MS + 10 * 60_000 }, () => {
  const apiKey = newApiKey();
  const resources = NAMES.map((name) => new Versions(name));
  const counts = new Map<string, number>();
  const failures: string[] = [];
  let folder = '';
  let origin: Origin;
  let loader: TestLoader;

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'loader-soak-'));
    origin = await Origin.start({ folder: path.join(folder, 'origin') });
    loader = await TestLoader.start({
      env: {
        API_KEY: apiKey,
        LOG_LEVEL: 'info',
        RESOURCE_API_URL: origin.api.url,
        MODEL_CACHE_DIR: path.join(folder, 'models'),
        STATE_DIR: path.join(folder, 'state'),
        DOCKER_HOST: `unix://${folder}/no-engine.sock`,
        IMAGES_PATH: path.join(folder, 'no-archive.enc'),
      },
    });
    await logIn(loader);
    for (const versions of resources) await versions.upload(loader);
  });
  after(async () => {
    await loader.stop();
    await origin.stop();
    await rm(folder, { recursive: true, force: true });
  });

  const logIn = async (client: LoaderClient) => {
    bodyOf(await client.login(DEMO_USER.email, DEMO_USER.password));
  };
  const anyVersions = () => resources[randomInt(resources.length)] ?? assert.fail('there is no resource');

  /** Loads from the CDN, unless a copy comes meanwhile. */
  async function loadCold(): Promise<void> {
    const versions = anyVersions();
    await rm(path.join(folder, 'models', 'models', `${versions.name}.big`), { force: true });
    await versions.load(loader);
  }

  async function look(client: LoaderClient): Promise<void> {
    for (const route of ['/health', '/status', '/unlock/status', '/tasks', '/tasks/history?limit=20', '/schedules']) {
      await client.getOk(route);
    }
  }

  /** Other clients may have begun a task of the same provider: then that one is answered. */
  async function runTask(client: LoaderClient): Promise<void> {
    const tasks = new TaskClient(client);
    const kind = randomInt(4);
    if (kind === 0) {
      await schedule(tasks);
      return;
    }
    const answer = await (kind === 1
      ? tasks.post('verify')
      : kind === 2
        ? tasks.post('evict', { max_bytes: randomInt(30_000_000) })
        : tasks.post('prefetch', prefetchOf(...NAMES)));
    const { uid } = bodyOf(answer);
    if (typeof uid !== 'string') return;
    if (randomInt(4) === 0) await client.delete(`/tasks/${uid}`);
    await tasks.ended(uid);
    await tasks.lines(uid);
  }

  async function schedule(tasks: TaskClient): Promise<void> {
    const { id } = await tasks.schedule({ provider: 'verify', cron: '0 3 * * *' });
    bodyOf(await loader.delete(`/schedules/${id}`));
  }

  /** Does something and leaves at any moment of it. What is answered until then is not looked at. */
  async function breakOff(): Promise<void> {
    const client = new LoaderClient({ url: loader.url, apiKey, signal: AbortSignal.timeout(randomInt(150)) });
    const works = [
      () => client.upload('broken-off', makeContent()),
      async () => digestBody(await client.load('one')),
      () => logIn(client),
      () => runTask(client),
      () => Array.fromAsync(client.watchUnlock()),
    ];
    await works[randomInt(works.length)]?.().catch(() => undefined);
  }

  /** What each of the sixteen does again and again, and the mean pause between, in ms. */
  const clients: readonly { name: string; pauseMs: number; work: () => Promise<void> }[] = [
    ...Array.from({ length: 5 }, () => ({
      name: 'cached load',
      pauseMs: 1_500,
      work: () => anyVersions().load(loader),
    })),
    ...Array.from({ length: 2 }, () => ({ name: 'cold load', pauseMs: 4_000, work: loadCold })),
    ...resources.slice(0, 2).map((versions) => ({
      name: 'upload',
      pauseMs: 6_000,
      work: () => versions.upload(loader),
    })),
    { name: 'login', pauseMs: 3_000, work: () => logIn(loader) },
    ...Array.from({ length: 2 }, () => ({ name: 'look at all states', pauseMs: 1_000, work: () => look(loader) })),
    ...Array.from({ length: 2 }, () => ({ name: 'task', pauseMs: 4_000, work: () => runTask(loader) })),
    ...Array.from({ length: 2 }, () => ({ name: 'broken-off work', pauseMs: 1_000, work: breakOff })),
  ];

  async function runClients(signal: AbortSignal): Promise<void> {
    await Promise.all(
      clients.map(async ({ name, pauseMs, work }) => {
        while (!signal.aborted) {
          try {
            await work();
          } catch (error) {
            failures.push(`${name}: ${String(error)}`);
            console.log(new Date().toISOString(), failures.at(-1));
          }
          counts.set(name, (counts.get(name) ?? 0) + 1);
          await sleep(Math.random() * 2 * pauseMs * PACE, undefined, { signal }).catch(() => undefined);
        }
      }),
    );
  }

  /**
   * What the Loader has open: sockets, pipes and the like by their kind. A short run can't wait for the end of idle
   * connections and threads, which have these open.
   */
  function handles(): string[] {
    return readOpenFiles(loader.pid)
      .map((target) => target.replace(/^(\w+):.*$/, '$1').replace(folder, ''))
      .filter((target) => IS_LONG || !['socket', 'anon_inode', 'pipe'].includes(target))
      .toSorted();
  }

  /** Waits until nothing of the work is left. */
  async function restingHandles(): Promise<string[]> {
    let last: string[] = [];
    let since = performance.now();
    const isAtRest = () => {
      const present = handles();
      if (present.join() !== last.join()) [last, since] = [present, performance.now()];
      return performance.now() - since > REST_MS;
    };
    await eventually(isAtRest, { timeoutMs: 5 * 60_000, pollMs: 100, what: 'a rest of the handles' });
    return last;
  }

  it('answers rightly, keeps its memory, and ends with the handles that it began with', async (t) => {
    // Once, so that everything that is opened by its first use is open.
    for (const { work } of clients) await work();
    const before = await restingHandles();
    const end = new AbortController();
    const phases = Array.from({ length: PHASES }, () => ({ sum: 0, samples: 0 }));
    const beganAt = performance.now();
    const working = runClients(end.signal);
    for (let now = 0; now < RUN_MS; now = performance.now() - beganAt) {
      const phase = phases[Math.floor((now / RUN_MS) * PHASES)];
      if (phase !== undefined) {
        phase.sum += readMemory(loader.pid).present;
        phase.samples++;
      }
      await sleep(SAMPLE_MS);
    }
    end.abort();
    await working;
    const means = phases.map(({ sum, samples }) => sum / samples);
    t.diagnostic([...counts].map(([name, count]) => `${count} × ${name}`).join(', '));
    t.diagnostic(`memory of each sixth: ${means.map((mean) => (mean / 1024 / 1024).toFixed(1)).join(', ')} MiB`);
    const present = await restingHandles();
    t.diagnostic(`handles: ${before.length} before, ${present.length} after`);
    assert.equal(failures.length, 0, failures.slice(0, MAX_FAILURES_SHOWN).join('\n'));
    assert.deepEqual(present, before);
    const growth = (means.at(-1) ?? NaN) / (means[1] ?? NaN);
    if (IS_LONG) assert.ok(growth <= MAX_MEMORY, `the memory has grown to ${growth.toFixed(3)} of the second sixth`);
  });
});
