import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Device } from '../../support/device.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';
import { eventually } from '../../../lab/waiting.ts';
import { makeRandom } from '../../../lab/seeded-random.ts';
import { newApiKey } from '../../support/test-loader.ts';
import { prefetchOf, type HistoryPage, type TaskView, type ScheduleView } from '../../../lab/task-client.ts';

/** A run of the tests takes 12, the campaign (npm run test:kills) 200. A run can be repeated by its seed. */
const KILLS = Number(process.env['LOADER_TEST_TASK_KILLS'] ?? 12);
const SEED = Number(process.env['LOADER_TEST_TASK_SEED'] ?? randomInt(2 ** 31));

const MAX_ALIVE_MS = 160;
/** How many do something at the same time while the Loader is alive. */
const WORKERS = 4;
const MAX_ATTEMPTS = 10;
const REPEATABLE = ['prefetch', 'verify', 'evict'];
const CODES = new Set(['complete', 'failed', 'cancelled', 'interrupted']);

/** What never changes about a task. */
function identity({
  uid,
  provider,
  parameters,
  attempt,
  retry_of: retryOf,
  schedule,
  created_at: at,
}: TaskView): string {
  return JSON.stringify([uid, provider, parameters, attempt, retryOf, schedule, at]);
}

/** All that was ever answered about tasks, and what must be true of it for ever. */
class Model {
  /** Provider of those whose begin was answered, by uid. */
  readonly begun = new Map<string, string>();
  readonly seen = new Map<string, TaskView>();
  /** JSON of finished ones, by uid. */
  readonly #finished = new Map<string, string>();

  get running(): TaskView[] {
    return [...this.seen.values()].filter(({ status }) => status === 'in_progress');
  }

  /** Takes in what was answered about a task; it must fit what was answered before. */
  note(task: TaskView): void {
    const before = this.seen.get(task.uid);
    const finished = this.#finished.get(task.uid);
    if (before !== undefined) assert.equal(identity(task), identity(before), 'another task has its uid');
    if (finished !== undefined) {
      // An answer that was on its way while the task ended may come late, but only within one life: see `noteAll`.
      if (task.status !== 'in_progress') assert.equal(JSON.stringify(task), finished, 'a finished task has changed');
      return;
    }
    if (before !== undefined) assert.ok(task.bytes_done >= before.bytes_done || task.status === 'interrupted');
    assert.equal(task.progress === 100, task.status === 'complete');
    assert.equal(task.finished_at === null, task.status === 'in_progress');
    if (task.status === 'in_progress') assert.deepEqual([task.result, task.error, task.code], [null, null, null]);
    else assert.ok(CODES.has(task.status));
    if (task.provider === 'verify' && task.status === 'complete') {
      assert.equal((task.result as { bad: number }).bad, 0, 'a copy in the cache was bad');
    }
    this.seen.set(task.uid, task);
    if (task.status !== 'in_progress') this.#finished.set(task.uid, JSON.stringify(task));
  }

  /** The whole history after a start, newest first. `ran` are those that were running when the Loader died. */
  noteAll(history: readonly TaskView[], ran: readonly TaskView[]): void {
    const byUid = new Map(history.map((task) => [task.uid, task]));
    assert.equal(byUid.size, history.length, 'a task is in the history twice');
    for (const [uid, provider] of this.begun) {
      assert.equal(byUid.get(uid)?.provider, provider, `${provider} ${uid}, which was answered, is lost`);
    }
    for (const [uid, { status }] of this.seen) {
      const task = byUid.get(uid);
      assert.ok(task !== undefined, `${uid}, which was seen, is lost`);
      if (status !== 'in_progress') assert.equal(task.status, status, 'a finished task has changed');
    }
    for (const { uid, provider } of ran) {
      assert.notEqual(byUid.get(uid)?.status, 'in_progress', `${provider} ${uid} runs on in another process`);
    }
    for (const task of history) this.note(task);
    const running = history.filter(({ status }) => status === 'in_progress').map(({ provider }) => provider);
    assert.equal(new Set(running).size, running.length, `two of a provider run: ${running.join(', ')}`);
    this.#checkRetries(history);
  }

  #checkRetries(history: readonly TaskView[]): void {
    const retries = Map.groupBy(
      history.filter((task) => task.retry_of !== null),
      (task) => task.retry_of,
    );
    for (const task of history) {
      const { uid, provider, status, attempt, code } = task;
      const [retry, ...others] = retries.get(uid) ?? [];
      const mayRetry = status === 'interrupted' && REPEATABLE.includes(provider) && attempt < MAX_ATTEMPTS;
      assert.deepEqual(others, [], `${provider} ${uid} was repeated more than once`);
      assert.equal(retry !== undefined, mayRetry, `${provider} ${uid}, ${status}, attempt ${attempt}: its repetition`);
      if (status === 'interrupted') assert.equal(code, 'task_interrupted');
      if (retry === undefined) continue;
      assert.deepEqual(
        [retry.provider, retry.parameters, retry.schedule, retry.attempt],
        [provider, task.parameters, task.schedule, attempt + 1],
      );
    }
    for (const uid of retries.keys()) assert.ok(history.some((task) => task.uid === uid));
  }
}

/** Whether a request failed since the Loader was killed. */
function isBrokenConnection(error: unknown): boolean {
  return error instanceof TypeError && ['fetch failed', 'terminated'].includes(error.message);
}

describe('tasks of a Loader that is killed', { skip: S3_SKIP }, () => {
  let device: Device;
  const random = makeRandom(SEED);
  const pick = <T>(items: readonly T[]): T | undefined => items[Math.floor(random() * items.length)];
  const contents = new Map(
    [20_000, 200_000, 1_000_000, 2_000_000, 3_000_000, 9_000_000].map((length, i) => [
      `model-${i}`,
      randomBytes(length),
    ]),
  );
  const names = [...contents.keys()];
  /** Digests of the copies, by file name. */
  const copies = new Map<string, string>();
  const model = new Model();
  let schedules: readonly ScheduleView[] = [];

  before(async () => {
    const env = { API_KEY: newApiKey(), UPSTREAM_TIMEOUT_MS: '10000', STALL_TIMEOUT_MS: '10000', LOG_LEVEL: 'info' };
    device = await Device.start({ env });
    await device.login();
    for (const [name, content] of contents) {
      await device.upload(name, new Uint8Array(content));
      copies.set(`${name}.big`, sha256(await readFile(device.bigPath(name))));
    }
    for (const name of names) {
      copies.set(`${name}.big.dsse`, sha256(await readFile(`${device.bigPath(name)}.dsse`)));
    }
    await device.restartLoader('SIGTERM'); // Leaves what makes the starts to come faster.
    await device.tasks.schedule({ provider: 'evict', parameters: { max_bytes: 4_000_000 }, cron: '* * * * * *' });
    await device.tasks.schedule({ provider: 'verify', cron: '* * * * * *', catch_up: true });
    schedules = await device.tasks.schedules();
    device.s3Proxy.fault = ({ headers }) =>
      /^bytes=\d/.test(headers.range ?? '') ? { kind: 'throttle', bytesPerSecond: 60_000_000 } : { kind: 'pass' };
  });

  after(() => device.stop());

  /** Without a trace in answers.log, which would become very long. */
  async function wholeHistory(): Promise<TaskView[]> {
    const tasks: TaskView[] = [];
    for (let cursor: string | null = ''; cursor !== null;) {
      const url = `${device.loader.url}/tasks/history?limit=200${cursor === '' ? '' : `&cursor=${cursor}`}`;
      const response = await fetch(url, { headers: device.loader.authorization });
      assert.equal(response.status, 200);
      const page = (await response.json()) as HistoryPage;
      tasks.push(...page.tasks);
      cursor = page.next_cursor;
    }
    return tasks;
  }

  /** One step of an operator. What is answered goes into the model. */
  async function step(): Promise<void> {
    const { tasks } = device;
    const running = pick(model.running);
    const choice = random();
    if (choice < 0.3) {
      const wanted = names.filter(() => random() < 0.15);
      await begin(
        'prefetch',
        prefetchOf(...(wanted.length === 0 ? [names[0] ?? ''] : wanted), ...(random() < 0.2 ? ['absent'] : [])),
      );
    } else if (choice < 0.45) {
      await begin('verify');
    } else if (choice < 0.6) {
      await begin('evict', { max_bytes: Math.floor(random() * 12_000_000) });
    } else if (choice < 0.68) {
      await begin('unlock', { email: device.email, password: 'there-is-no-archive' });
    } else if (choice < 0.72 && running !== undefined) {
      const task = await tasks.cancel(running.uid);
      assert.notEqual(task.status, 'in_progress', 'the answer came before the end');
      model.note(task);
    } else if (choice < 0.86) {
      for (const task of (await tasks.history('?limit=5')).tasks) model.note(task);
      const busy = (await tasks.history('?status=in_progress')).tasks.map(({ provider }) => provider);
      assert.equal(new Set(busy).size, busy.length, `two of a provider run: ${busy.join(', ')}`);
    } else if (choice < 0.93 && running !== undefined) {
      for await (const { event, data } of tasks.events(running.uid)) {
        if (event === 'end') model.note(data as TaskView);
        if (random() < 0.3) break;
      }
    } else {
      const name = pick(names) ?? '';
      const response = await device.loader.load(name);
      if (response.status === 200)
        assert.equal((await digestBody(response)).sha256, sha256(contents.get(name) ?? Buffer.alloc(0)));
      else await response.text();
    }
  }

  async function begin(provider: string, parameters: object = {}): Promise<void> {
    const { status, body } = await device.tasks.post(provider, parameters);
    assert.equal(status, 200, JSON.stringify(body));
    const { uid } = body;
    if (typeof uid !== 'string') return;
    model.begun.set(uid, provider);
    model.note(await device.tasks.details(uid));
  }

  /** Lives until it is killed. */
  async function live(): Promise<void> {
    let isAlive = true;
    const untilKilled = async (work: () => Promise<void>) => {
      try {
        await work();
      } catch (error) {
        if (isAlive || !isBrokenConnection(error)) throw error;
      }
    };
    const { loader } = device;
    // Mostly before anything else: without a login there is little to interrupt.
    const login = random();
    if (login < 0.85) await device.login();
    const aliveMs = random() * MAX_ALIVE_MS;
    const killed = sleep(aliveMs).then(() => {
      isAlive = false;
      return loader.stop('SIGKILL');
    });
    const workers = Array.from({ length: WORKERS }, async (_, index) => {
      if (index === 0 && login < 0.95) await untilKilled(() => device.login());
      while (isAlive) await untilKilled(step);
    });
    await Promise.all([killed, ...workers]);
  }

  /** While nobody changes it: each copy in the cache is the one that was uploaded. */
  async function checkCache(): Promise<void> {
    const folder = path.join(device.cacheFolder, 'models');
    for (const file of await readdir(folder)) {
      assert.equal(
        sha256(await readFile(path.join(folder, file))),
        copies.get(file),
        `${file} is not what was uploaded`,
      );
    }
  }

  async function checkSchedules(): Promise<void> {
    const present = await device.tasks.schedules();
    for (const [index, schedule] of present.entries()) {
      const { last_run: lastRun, next_run: nextRun } = schedule;
      const { last_run: lastRunBefore, next_run: nextRunBefore } = schedules[index] ?? schedule;
      const before = { ...schedules[index], last_run: lastRun, next_run: nextRun };
      assert.deepEqual(schedule, before);
      assert.ok((nextRun ?? '') >= (nextRunBefore ?? ''));
      assert.ok(Date.parse(nextRun ?? '') > Date.parse(lastRun?.due_at ?? '1970-01-01'));
      assert.ok((lastRun?.due_at ?? '') >= (lastRunBefore?.due_at ?? ''), 'a time came twice');
      if (lastRun?.outcome === 'started') assert.ok(model.seen.has(lastRun.task ?? '') || (await isTask(lastRun.task)));
    }
    assert.equal(present.length, schedules.length);
    schedules = present;
  }

  async function isTask(uid: string | null): Promise<boolean> {
    return (await device.loader.get(`/tasks/${uid}`)).status === 200;
  }

  it(`are all there, none twice and none changed, after kill -9 at ${KILLS} random moments`, async (test) => {
    let killedInMidRun = 0;
    let inTheStart = 0;
    try {
      for (let kill = 0; kill < KILLS; kill++) {
        await live();
        await checkCache();
        const ran = model.running;
        if (ran.length > 0) killedInMidRun++;
        if (random() < 0.1) {
          inTheStart++;
          await device.startAndKillLoader(200 + random() * 200);
        }
        const unfinished = await device.unfinishedFiles();
        await device.startLoader();
        const left = await device.unfinishedFiles();
        assert.deepEqual(
          unfinished.filter((name) => left.includes(name)),
          [],
          'unfinished files were left',
        );
        model.noteAll(await wholeHistory(), ran);
        await checkSchedules();
      }
      for (const { id } of schedules) assert.equal((await device.loader.delete(`/schedules/${id}`)).status, 200);
      device.heal();
      await device.login();
      // Repetitions that wait for the login go on, and all comes to its end.
      await eventually(async () => (await device.tasks.history('?status=in_progress')).tasks.length === 0, {
        timeoutMs: 20_000,
      });
      await device.settled();
      model.noteAll(await wholeHistory(), model.running);
      await checkCache();
      for (const [name, content] of contents) {
        assert.equal((await digestBody(await device.loader.load(name))).sha256, sha256(content));
      }
    } catch (error) {
      throw new Error(`it failed with LOADER_TEST_TASK_SEED=${SEED}`, { cause: error });
    }
    const counts = Map.groupBy(model.seen.values(), ({ provider, status }) => `${provider} ${status}`);
    const text = [...counts]
      .map(([what, { length }]) => `${length} ${what}`)
      .sort()
      .join(', ');
    test.diagnostic(`seed ${SEED}: ${killedInMidRun} kills in mid-run, ${inTheStart} more in the start; ${text}`);
    assert.ok(killedInMidRun > KILLS / 4, `only ${killedInMidRun} kills fell into a run`);
  });
});
