import assert from 'node:assert/strict';
import { syncBuiltinESMExports } from 'node:module';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, it, mock } from 'node:test';
import fc from 'fast-check';
import { NEVER } from '../../../src/async/abort.ts';
import { LoaderError } from '../../../src/errors.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { CronExpression } from '../../../src/tasks/cron-expression.ts';
import { ScheduleStore } from '../../../src/tasks/schedule-store.ts';
import type { DueTime } from '../../../src/tasks/schedule.ts';
import { Schedules } from '../../../src/tasks/schedules.ts';
import { FIRST_POSITION, parseEventPosition, type TaskEvent } from '../../../src/tasks/task-events.ts';
import type { Task } from '../../../src/tasks/task.ts';
import { ControlledProvider, DAY_MS, HOUR_MS, TaskLab, type ControlledRun } from '../../support/task-lab.ts';

/** The number of random sequences of what may happen to tasks. `npm run test:properties` has 20,000. */
const RUNS = Number(process.env['LOADER_TEST_PROPERTY_RUNS'] ?? 300);
/** Set it to repeat a sequence that failed: the message has the seed. */
const SEED = Number(process.env['LOADER_TEST_PROPERTY_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
/** Sequences with one seed. */
const CHUNK = 1_000;
/** A line of output comes after as many chunks. */
const CHUNKS_PER_LINE = 20;

/** What a clock shows before it is set. */
const UNSET_CLOCK_MS = Date.parse('2026-01-01T00:00:00Z');

const MAX_ATTEMPTS = 10;
const STOPPED = 'The Loader stopped while the task ran.';
const DIED = 'The Loader died while the task ran.';
const logger = createLogger({ level: 'silent' });

type Step =
  | { readonly kind: 'create' | 'log' | 'complete' | 'cancel'; readonly provider: number }
  | { readonly kind: 'fail'; readonly provider: number; readonly isKnown: boolean }
  | { readonly kind: 'report'; readonly provider: number; readonly done: number; readonly total: number | null }
  | { readonly kind: 'cancelEnded'; readonly which: number }
  | { readonly kind: 'stop'; readonly obedient: number }
  | { readonly kind: 'die' }
  | { readonly kind: 'fillDisk'; readonly isFull: boolean };

/** Two that are repeated when they were interrupted, and one that is not. Each sequence begins with all of them idle. */
const PROVIDERS = [
  new ControlledProvider('a', { isRepeatable: true }),
  new ControlledProvider('b', { isRepeatable: true }),
  new ControlledProvider('c'),
] as const;

const anyProvider = fc.nat(PROVIDERS.length - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('create'), provider: anyProvider }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constantFrom('log', 'complete', 'cancel'), provider: anyProvider }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('fail'), provider: anyProvider, isKnown: fc.boolean() }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('report'),
      provider: anyProvider,
      done: fc.nat(120),
      total: fc.option(fc.nat(100), { freq: 4 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('cancelEnded'), which: fc.nat(20) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('stop'), obedient: fc.nat(7) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('die') }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('fillDisk'), isFull: fc.boolean() }) },
);

/** What must be true of a task. */
interface Expected {
  readonly provider: number;
  readonly attempt: number;
  readonly retryOf: string | null;
  readonly texts: string[];
  progress: number;
  /** What was shown while the disk was not full. */
  storedProgress: number;
  bytesDone: number;
  bytesTotal: number | null;
  isCancelled: boolean;
  /** The whole record, once it has ended. */
  ended: Task | undefined;
}

/** Tasks as they should be, beside those that are. */
class World {
  nowMs = Date.now();
  readonly #lab: TaskLab;
  /** By uid, oldest first. */
  readonly #expected = new Map<string, Expected>();
  /** By provider. */
  readonly #running = new Map<number, string>();
  /** Those that ended while the disk was full, and may not have been written since. */
  readonly #unsure = new Set<string>();
  #isFull = false;

  constructor() {
    for (const { runs } of PROVIDERS) runs.length = 0;
    this.#lab = new TaskLab(PROVIDERS, { now: () => this.nowMs, logger });
  }

  async do(action: Step): Promise<void> {
    this.nowMs += 400;
    switch (action.kind) {
      case 'create':
        await this.#create(action.provider);
        break;
      case 'report':
        this.#report(action.provider, action.done, action.total);
        break;
      case 'log':
        this.#log(action.provider);
        break;
      case 'complete':
        await this.#end(action.provider, 'complete', (run) => {
          run.complete({ at: this.nowMs });
        });
        break;
      case 'fail':
        await this.#end(action.provider, action.isKnown ? 'cdn_error' : 'internal_error', (run) =>
          run.fail(action.isKnown ? new LoaderError('cdn_error', 'No.') : new Error('hush')),
        );
        break;
      case 'cancel':
        this.#cancel(action.provider);
        break;
      case 'cancelEnded':
        await this.#cancelEnded(action.which);
        break;
      case 'stop':
        await this.#stop(action.obedient);
        break;
      case 'die':
        await this.#die();
        break;
      case 'fillDisk':
        this.#fillDisk(action.isFull);
        break;
    }
    this.#check();
  }

  async #create(number: number): Promise<void> {
    const name = this.#name(number);
    if (this.#isFull && !this.#running.has(number)) {
      assert.throws(() => this.#lab.runner.create(name, {}), { code: 'task_store_unavailable' });
      return;
    }
    const task = this.#lab.runner.create(name, { at: this.nowMs });
    assert.equal(task === undefined, this.#running.has(number));
    if (task === undefined) return;
    this.#expect(task, number, null);
    this.#unsure.clear();
    await nextTurn();
  }

  #report(number: number, done: number, total: number | null): void {
    const run = this.#run(number);
    const expected = this.#of(this.#running.get(number));
    run?.context.report({ bytesDone: done, bytesTotal: total });
    if (expected === undefined) return;
    const share = total === null || total === 0 ? 0 : Math.floor((100 * done) / total);
    const before = expected.progress;
    expected.progress = Math.max(expected.progress, Math.min(99, share));
    if (!this.#isFull && expected.progress > before) expected.storedProgress = expected.progress;
    expected.bytesDone = Math.max(expected.bytesDone, done);
    expected.bytesTotal = total;
  }

  #log(number: number): void {
    const text = `at ${this.nowMs}`;
    this.#run(number)?.context.log('info', text);
    this.#noteLine(this.#of(this.#running.get(number)), text);
  }

  /** A line is in the log unless the disk is full. Its writing has written all else. */
  #noteLine(expected: Expected | undefined, text: string): void {
    if (expected === undefined || this.#isFull) return;
    expected.texts.push(text);
    this.#unsure.clear();
  }

  async #end(number: number, how: string, end: (run: ControlledRun) => void): Promise<void> {
    const run = this.#run(number);
    const uid = this.#running.get(number);
    if (run !== undefined) end(run);
    await nextTurn();
    if (uid !== undefined) this.#noteEnd(uid, how);
  }

  /** What a run that ended in some way leaves behind: it was cancelled, perhaps, or the Loader stops. */
  #noteEnd(uid: string, how: string): void {
    const expected = this.#of(uid) ?? assert.fail();
    const code = how === 'complete' ? null : expected.isCancelled ? 'task_cancelled' : how;
    const status =
      code === null
        ? 'complete'
        : code === 'task_cancelled'
          ? 'cancelled'
          : code === 'task_interrupted'
            ? 'interrupted'
            : 'failed';
    const task = this.#lab.runner.find(uid);
    assert.deepEqual([task.status, task.code, task.finishedAtMs], [status, code, this.nowMs]);
    assert.deepEqual(task.result, status === 'complete' ? { at: this.nowMs } : null);
    assert.equal(task.progress, status === 'complete' ? 100 : expected.progress);
    assert.equal(task.error === null, status === 'complete');
    if (task.error !== null) this.#noteLine(expected, task.error);
    this.#noteEnded(uid, task);
    if (this.#isFull) this.#unsure.add(uid);
    else this.#unsure.clear();
  }

  #noteEnded(uid: string, task: Task): void {
    const expected = this.#of(uid) ?? assert.fail();
    expected.ended = task;
    this.#running.delete(expected.provider);
  }

  #cancel(number: number): void {
    const uid = this.#running.get(number);
    const expected = this.#of(uid);
    if (uid === undefined || expected === undefined) return;
    void this.#lab.runner.cancel(uid);
    expected.isCancelled = true;
    assert.equal(this.#run(number)?.context.signal.aborted, true);
  }

  async #cancelEnded(which: number): Promise<void> {
    const ended = [...this.#expected].filter(([, expected]) => expected.ended !== undefined);
    const [uid, expected] = ended[which % Math.max(1, ended.length)] ?? [];
    if (uid !== undefined) assert.deepEqual(await this.#lab.runner.cancel(uid), expected?.ended);
  }

  /** `obedient` has a bit for each provider whose run ends when it is asked to; the others complete all the same. */
  async #stop(obedient: number): Promise<void> {
    const runs = [...this.#running].map(([number, uid]) => ({ number, uid, run: this.#run(number) ?? assert.fail() }));
    const stopped = this.#lab.runner.stop();
    for (const { number, run } of runs) {
      assert.equal(run.context.signal.aborted, true);
      if ((obedient & (1 << number)) !== 0) run.fail(new Error('aborted'));
      else run.complete({ at: this.nowMs });
    }
    await stopped;
    for (const { number, uid } of runs) {
      const isObedient = (obedient & (1 << number)) !== 0;
      this.#noteEnd(uid, isObedient ? 'task_interrupted' : 'complete');
      const { ended, isCancelled } = this.#of(uid) ?? assert.fail();
      if (isObedient && !isCancelled) assert.equal(ended?.error, STOPPED);
    }
    for (const { provider } of PROVIDERS) {
      assert.throws(() => this.#lab.runner.create(provider.name, {}), { code: 'shutting_down' });
    }
    try {
      this.#lab.store.flush();
      this.#unsure.clear();
    } catch (error) {
      assert.equal((error as LoaderError).code, 'task_store_unavailable');
      assert.equal(this.#isFull, true);
    }
    const wantsRetry = runs.filter(({ uid }) => this.#of(uid)?.ended?.status === 'interrupted').map(({ uid }) => uid);
    await this.#restart(wantsRetry.filter((uid) => !this.#unsure.has(uid)));
  }

  async #die(): Promise<void> {
    await this.#restart([]);
  }

  /** Nothing of the earlier process goes on. `stopped`: tasks that it interrupted itself, as the disk knows. */
  async #restart(stopped: readonly string[]): Promise<void> {
    this.#fillDisk(false);
    const dead = this.#lab.database
      .prepare("SELECT uid FROM tasks WHERE status = 'in_progress' ORDER BY seq")
      .all()
      .map(({ uid }) => String(uid));
    for (const uid of dead) {
      const expected = this.#of(uid) ?? assert.fail();
      // Its end was never written: for the disk, it ran.
      assert.ok(expected.ended === undefined || this.#unsure.has(uid), 'the end of a task was lost');
    }
    this.#unsure.clear();
    this.#running.clear();
    this.nowMs += 1;
    this.#lab.restart();
    await nextTurn();

    for (const uid of dead) {
      const expected = this.#of(uid) ?? assert.fail();
      const task = this.#lab.runner.find(uid);
      assert.deepEqual([task.status, task.code, task.error], ['interrupted', 'task_interrupted', DIED]);
      assert.deepEqual([task.result, task.finishedAtMs], [null, this.nowMs]);
      assert.ok(task.progress >= expected.storedProgress && task.progress <= expected.progress);
      expected.ended = task;
      expected.texts.push(DIED);
    }
    const repeated = [
      ...stopped.filter((uid) => this.#isRepeatable(uid)),
      ...dead.filter((uid) => this.#isRepeatable(uid) && (this.#of(uid)?.attempt ?? 0) < MAX_ATTEMPTS),
    ];
    const tasks = this.#history();
    const fresh = tasks.filter(({ uid }) => !this.#expected.has(uid));
    assert.deepEqual(fresh.map(({ retryOf }) => retryOf).sort(), repeated.sort());
    for (const task of fresh.toReversed()) {
      const origin = this.#of(task.retryOf ?? '') ?? assert.fail();
      // The Loader died with it; or it stopped, which says nothing against it.
      assert.equal(task.attempt, origin.attempt + (stopped.includes(task.retryOf ?? '') ? 0 : 1));
      assert.equal(task.provider, this.#name(origin.provider));
      assert.deepEqual(task.parameters, origin.ended?.parameters);
      this.#expect(task, origin.provider, task.retryOf);
      assert.equal(this.#run(origin.provider)?.context.isUnattended, true);
    }
  }

  #fillDisk(isFull: boolean): void {
    this.#isFull = isFull;
    this.#lab.refuseWrites(isFull);
  }

  #expect(task: Task, number: number, retryOf: string | null): void {
    const { uid, attempt } = task;
    const beginning = {
      progress: 0,
      storedProgress: 0,
      bytesDone: 0,
      bytesTotal: null,
      isCancelled: false,
      ended: undefined,
    };
    assert.deepEqual([task.status, task.progress, task.retryOf], ['in_progress', 0, retryOf]);
    assert.ok(!this.#running.has(number) && !this.#expected.has(uid));
    this.#expected.set(uid, { provider: number, attempt, retryOf, texts: [], ...beginning });
    this.#running.set(number, uid);
  }

  /** What is true after each step. */
  #check(): void {
    const listed = this.#lab.runner.list().filter(({ status }) => status === 'in_progress');
    assert.deepEqual(listed.map(({ uid }) => uid).sort(), [...this.#running.values()].sort());
    assert.equal(new Set(listed.map((task) => task.provider)).size, listed.length);
    const tasks = this.#history();
    assert.deepEqual(
      tasks.map(({ uid }) => uid),
      [...this.#expected.keys()].reverse(),
    );
    for (const task of tasks) {
      const expected = this.#of(task.uid) ?? assert.fail();
      if (expected.ended !== undefined) {
        assert.deepEqual(task, expected.ended);
        continue;
      }
      assert.equal(task.status, 'in_progress');
      const { progress, bytesDone, bytesTotal } = expected;
      assert.deepEqual([task.progress, task.bytesDone, task.bytesTotal], [progress, bytesDone, bytesTotal]);
    }
  }

  /** What is true at the end. */
  async finish(pageSize: number): Promise<void> {
    this.#fillDisk(false);
    for (const [number, uid] of [...this.#running]) {
      this.#run(number)?.complete({ at: this.nowMs });
      await nextTurn();
      this.#noteEnd(uid, 'complete');
    }
    this.#lab.store.flush();
    this.#check();
    // Also in the eyes of the next process, for which there is nothing to do.
    for (const isNext of [false, true]) {
      if (isNext) this.#lab.restart();
      this.#check();
      assert.deepEqual(this.#pages(pageSize), [...this.#expected.keys()].reverse());
    }
    for (const [uid, { texts, retryOf }] of this.#expected) {
      await this.#checkEvents(uid, texts);
      const repetitions = [...this.#expected.values()].filter((other) => other.retryOf === uid).length;
      assert.ok(repetitions <= 1 && (retryOf === null || this.#of(retryOf)?.ended?.status === 'interrupted'));
    }
    this.#lab.database.close();
  }

  #pages(limit: number): string[] {
    const uids: string[] = [];
    let cursor: string | undefined;
    do {
      const { tasks, nextCursor } = this.#lab.runner.history({ limit, cursor });
      assert.ok(tasks.length === limit || nextCursor === null);
      uids.push(...tasks.map(({ uid }) => uid));
      cursor = nextCursor ?? undefined;
    } while (cursor !== undefined);
    return uids;
  }

  async #checkEvents(uid: string, texts: readonly string[]): Promise<void> {
    const { runner } = this.#lab;
    const whole = await Array.fromAsync(runner.watch(uid, FIRST_POSITION, NEVER));
    const end = whole.at(-1);
    assert.deepEqual(end?.data, this.#of(uid)?.ended);
    assert.deepEqual(
      whole.slice(0, -1).map((event) => (event.event === 'log' ? event.data.text : event.event)),
      texts,
    );
    for (const [index, { id }] of whole.entries()) {
      const position = parseEventPosition(id) ?? assert.fail();
      const rest = await Array.fromAsync(runner.watch(uid, position, NEVER));
      assert.deepEqual(rest, whole.slice(index + 1));
      assert.equal(runner.isPastEnd(uid, position), rest.length === 0);
    }
  }

  #history(): readonly Task[] {
    return this.#lab.runner.history({ limit: 10_000 }).tasks;
  }

  #of(uid: string | undefined): Expected | undefined {
    return uid === undefined ? undefined : this.#expected.get(uid);
  }

  #name(number: number): string {
    return PROVIDERS[number]?.provider.name ?? assert.fail();
  }

  #isRepeatable(uid: string): boolean {
    return PROVIDERS[this.#of(uid)?.provider ?? 0]?.provider.isRepeatable ?? assert.fail();
  }

  /** The run that its provider began last; it may have ended. */
  #run(number: number): ControlledRun | undefined {
    return PROVIDERS[number]?.runs.at(-1);
  }
}

type LiveStep =
  | { readonly kind: 'log' }
  | { readonly kind: 'report'; readonly done: number; readonly total: number }
  | { readonly kind: 'wait'; readonly ms: number }
  /** Somebody comes, or comes back, after an event that was told before. */
  | { readonly kind: 'follow'; readonly which: number };

const liveStep: fc.Arbitrary<LiveStep> = fc.oneof(
  fc.record({ kind: fc.constant('log') }),
  fc.record({ kind: fc.constant('report'), done: fc.nat(100), total: fc.nat(100) }),
  fc.record({ kind: fc.constant('wait'), ms: fc.constantFrom(1, 25, 50, 120) }),
  fc.record({ kind: fc.constant('follow'), which: fc.nat(50) }),
);

/** Somebody who follows a task from `id` on. */
interface Follower {
  readonly id: string;
  readonly told: TaskEvent[];
  readonly ended: Promise<void>;
}

/** Those who follow one task while it runs, and what they are told. */
async function checkFollowers(steps: readonly LiveStep[]): Promise<void> {
  const [controlled] = PROVIDERS;
  controlled.runs.length = 0;
  const { runner, database } = new TaskLab([controlled], { logger });
  const { uid } = runner.create('a', {}) ?? assert.fail();
  await nextTurn();
  const { context, complete } = controlled.last;
  const followers: Follower[] = [];
  const follow = (id: string) => {
    const told: TaskEvent[] = [];
    const ended = (async () => {
      const position = parseEventPosition(id) ?? assert.fail();
      for await (const event of runner.watch(uid, position, NEVER)) told.push(event);
    })();
    followers.push({ id, told, ended });
  };
  follow('0.0');
  for (const action of steps) {
    if (action.kind === 'log') context.log('info', `after ${runner.lines(uid, 0).length}`);
    if (action.kind === 'report') context.report({ bytesDone: action.done, bytesTotal: action.total });
    if (action.kind === 'wait') mock.timers.tick(action.ms);
    if (action.kind === 'follow') {
      const ids = followers.flatMap(({ id, told }) => [id, ...told.map((event) => event.id)]);
      follow(ids[action.which % ids.length] ?? '0.0');
    }
    await nextTurn();
  }
  complete('done');
  for (let turn = 0; turn < 3; turn++) {
    await nextTurn();
    mock.timers.tick(50);
  }
  await Promise.all(followers.map(({ ended }) => ended));
  const whole = await Array.fromAsync(runner.watch(uid, FIRST_POSITION, NEVER));
  for (const { id, told } of followers) {
    const { lines } = parseEventPosition(id) ?? assert.fail();
    // Lines and the end are for ever; progress is as it was.
    assert.deepEqual(
      told.filter(({ event }) => event !== 'progress'),
      whole.slice(lines),
    );
    const percents = told.flatMap(({ event, data }) => (event === 'progress' ? data.progress : []));
    assert.deepEqual(
      percents,
      percents.toSorted((x, y) => x - y),
    );
    assert.ok(percents.every((percent) => percent < 100));
    const places = [id, ...told.map((event) => event.id)].map((text) => {
      const position = parseEventPosition(text) ?? assert.fail();
      return position.lines * 1e6 + position.reports;
    });
    for (const [index, place] of places.entries()) assert.ok(index === 0 || place > (places[index - 1] ?? 0));
  }
  database.close();
}

type ClockStep =
  | { readonly kind: 'pass'; readonly ms: number }
  | { readonly kind: 'jump'; readonly ms: number }
  | { readonly kind: 'restart'; readonly downMs: number }
  | { readonly kind: 'finish' | 'keepBusy' };

const CRONS = [
  ['* * * * *', 'UTC'],
  ['*/7 * * * *', 'Europe/Berlin'],
  ['30 2 * * *', 'Europe/Berlin'],
  ['0 0 1 1 *', 'America/New_York'],
  ['*/30 * * * * *', 'Australia/Lord_Howe'],
] as const;

const clockStep: fc.Arbitrary<ClockStep> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('pass'), ms: fc.constantFrom(500, 15_000, 61_000, HOUR_MS, DAY_MS) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('jump'),
      ms: fc
        .tuple(
          fc.constantFrom(HOUR_MS, DAY_MS, 40 * DAY_MS, 3_000 * DAY_MS),
          fc.integer({ min: -10, max: 10 }),
          fc.nat(2),
        )
        .map(([unitMs, tenths, ms]) => Math.round((tenths / 10) * unitMs) - ms),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('restart'), downMs: fc.constantFrom(0, 5_000, 61_000, DAY_MS) }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom('finish', 'keepBusy') }) },
);

interface ClockStart {
  readonly startMs: number;
  readonly crons: readonly { readonly which: number; readonly catchUp: boolean }[];
  readonly steps: readonly ClockStep[];
}

/** Schedules under a clock that passes, jumps and is set back, and restarts. */
async function checkSchedules({ startMs, crons, steps }: ClockStart): Promise<void> {
  for (const { runs } of PROVIDERS) runs.length = 0;
  let nowMs = startMs;
  const lab = new TaskLab(PROVIDERS, { now: () => nowMs, logger, historyAgeMs: 1e15 });
  const makeSchedules = () =>
    new Schedules({ store: new ScheduleStore(lab.database, logger), runner: lab.runner, logger, now: () => nowMs });
  let schedules = makeSchedules();
  schedules.start();
  for (const [index, { which, catchUp }] of crons.entries()) {
    const [cron, timezone] = CRONS[which] ?? CRONS[0];
    const name = PROVIDERS[index % PROVIDERS.length]?.provider.name ?? '';
    schedules.create({ provider: name, parameters: {}, cron, timezone, catchUp });
  }
  /** By schedule: the due times that were used up since the clock went back. */
  const used = new Map<string, Set<number>>();
  for (const action of steps) {
    const before = new Map(schedules.list().map((schedule) => [schedule.id, schedule]));
    const tasksBefore = new Set(lab.runner.history({ limit: 10_000 }).tasks.map(({ uid }) => uid));
    if (action.kind === 'pass' || action.kind === 'jump') {
      nowMs = Math.max(0, nowMs + action.ms);
      if (action.ms < 0) used.clear();
      schedules.tick();
    } else if (action.kind === 'restart') {
      schedules.stop();
      nowMs += action.downMs;
      lab.restart();
      schedules = makeSchedules();
      schedules.start();
    } else if (action.kind === 'finish') {
      for (const { runs } of PROVIDERS) runs.at(-1)?.complete();
    } else {
      lab.runner.create('a', {});
    }
    await nextTurn();
    const started: string[] = [];
    for (const schedule of schedules.list()) {
      const { id, cron, timezone, nextDueAtMs, lastDue, catchUp } = schedule;
      // It waits for its next time, from now or, after a small correction of the clock, from a time that is used up.
      const lastMs = lastDue?.dueAtMs ?? 0;
      const fromMs = lastMs > nowMs && lastMs - nowMs < DAY_MS ? lastMs : nowMs;
      const latestMs = new CronExpression(cron, timezone).next(fromMs);
      const isStalled = latestMs !== null && (nextDueAtMs === null || nextDueAtMs > latestMs);
      assert.ok(!isStalled || nowMs < UNSET_CLOCK_MS, `it waits from ${nowMs} until ${nextDueAtMs}, not ${latestMs}`);
      const earlier = before.get(id) ?? assert.fail();
      const isDue = earlier.nextDueAtMs !== null && earlier.nextDueAtMs <= nowMs;
      // What was read from the disk is another object; what was used twice looks the same.
      const isUsed =
        action.kind === 'restart'
          ? JSON.stringify(lastDue) !== JSON.stringify(earlier.lastDue) ||
            (isDue && lastDue?.dueAtMs === earlier.nextDueAtMs)
          : lastDue !== earlier.lastDue;
      if (isDue && !isUsed) {
        // It is made up for later: its provider is busy.
        assert.ok(catchUp && nowMs - earlier.nextDueAtMs > 60_000);
        assert.ok(lab.runner.list().some((task) => task.provider === schedule.provider));
        assert.equal(nextDueAtMs, earlier.nextDueAtMs);
      }
      assert.ok(isDue || !isUsed);
      if (!isUsed || lastDue === null) continue;
      checkOutcome(lastDue, earlier.nextDueAtMs, nowMs, catchUp);
      if (lastDue.task !== null) started.push(lastDue.task);
      const times = used.get(id) ?? new Set();
      assert.ok(!times.has(lastDue.dueAtMs), 'a time was used twice');
      used.set(id, times.add(lastDue.dueAtMs));
    }
    const fresh = lab.runner.history({ limit: 10_000 }).tasks.filter(({ uid }) => !tasksBefore.has(uid));
    const scheduled = fresh.filter(({ scheduleId, retryOf }) => scheduleId !== null && retryOf === null);
    assert.deepEqual(scheduled.map(({ uid }) => uid).sort(), started.sort());
  }
  schedules.stop();
  lab.database.close();
}

function checkOutcome(run: DueTime, dueAtMs: number | null, nowMs: number, catchUp: boolean): void {
  assert.equal(run.dueAtMs, dueAtMs);
  const isLate = nowMs - run.dueAtMs > 60_000;
  if (isLate && !catchUp) assert.equal(run.outcome, 'missed');
  else assert.ok(run.outcome === 'started' || run.outcome === 'skipped', run.outcome);
  assert.equal(run.task === null, run.outcome !== 'started');
  assert.equal(run.reason === null, run.outcome === 'started');
}

/** Checks a property with so many runs, and tells from time to time how far it is. */
async function check<T>(name: string, property: fc.IAsyncProperty<T>, runs: number): Promise<void> {
  const chunks = Math.ceil(runs / CHUNK);
  for (let chunk = 0; chunk < chunks; chunk++) {
    const numRuns = Math.min(CHUNK, runs - chunk * CHUNK);
    try {
      await fc.assert(property, { seed: SEED + chunk, numRuns, endOnFailure: process.env['CI'] === 'true' });
    } catch (error) {
      console.log(`To repeat it: LOADER_TEST_PROPERTY_SEED=${SEED + chunk} LOADER_TEST_PROPERTY_RUNS=${CHUNK}`);
      throw error;
    }
    if ((chunk + 1) % CHUNKS_PER_LINE !== 0) continue;
    const megabytes = Math.round(process.memoryUsage().rss / 2 ** 20);
    console.log(`${name}: ${(chunk + 1) * CHUNK} of ${runs} sequences, ${megabytes} MiB`);
  }
}

describe(`tasks in random sequences, seed ${SEED}`, () => {
  it(`are as they should be, whatever happens: ${RUNS} sequences`, async () => {
    const sequence = fc.array(step, { minLength: 1, maxLength: 24 });
    await check(
      'tasks',
      fc.asyncProperty(sequence, fc.integer({ min: 1, max: 9 }), async (steps, pageSize) => {
        const world = new World();
        for (const action of steps) await world.do(action);
        await world.finish(pageSize);
      }),
      RUNS,
    );
  });

  const liveRuns = Math.max(250, Math.ceil(RUNS / 10));
  it(`are told to those who follow them, whenever these come: ${liveRuns} sequences`, async () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    syncBuiltinESMExports(); // For modules that have imported the timers by name.
    try {
      const property = fc.asyncProperty(fc.array(liveStep, { maxLength: 30 }), checkFollowers);
      await check('followers', property, liveRuns);
    } finally {
      mock.timers.reset();
      syncBuiltinESMExports();
    }
  });
});

describe(`schedules under a random clock, seed ${SEED}`, () => {
  const runs = Math.max(200, Math.ceil(RUNS / 20));
  it(`use each time at most once, and never stall: ${runs} sequences`, async () => {
    const start = fc.record({
      startMs: fc.nat(40_000).map((hours) => UNSET_CLOCK_MS + (hours / 4) * HOUR_MS),
      crons: fc.array(fc.record({ which: fc.nat(CRONS.length - 1), catchUp: fc.boolean() }), {
        minLength: 1,
        maxLength: 4,
      }),
      steps: fc.array(clockStep, { maxLength: 20 }),
    });
    await check('schedules', fc.asyncProperty(start, checkSchedules), runs);
  });
});
