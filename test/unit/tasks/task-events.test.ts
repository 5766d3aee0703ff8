import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { after, before, beforeEach, describe, it } from 'node:test';
import { LoaderError } from '../../../src/errors.ts';
import {
  FIRST_POSITION,
  followTask,
  isPastEnd,
  parseEventPosition,
  type EventPosition,
  type FollowedTask,
  type TaskEvent,
} from '../../../src/tasks/task-events.ts';
import type { TaskLogLine } from '../../../src/tasks/task.ts';
import { ControlledProvider, makeLine, makeTask, TaskLab } from '../../support/task-lab.ts';
import { NEVER } from '../../../src/async/abort.ts';
import { settle } from '../../../lab/waiting.ts';

/** Longer than progress is held back. */
const PAUSE_MS = 70;
let a = new ControlledProvider('a', { isRepeatable: true });
let lab = new TaskLab([a]);

// The waits of the events keep no process alive; that of the test is alive all the same.
let keptAlive: NodeJS.Timeout | undefined;
before(() => {
  keptAlive = setInterval(() => undefined, 1_000);
});
after(() => {
  clearInterval(keptAlive);
});

beforeEach(() => {
  a = new ControlledProvider('a', { isRepeatable: true });
  lab = new TaskLab([a]);
});

/** One event in short: `log 1.0 text`, `progress 1.1 50`, or `end 2.0 complete`. */
function short({ event, id, data }: TaskEvent): string {
  if (event === 'log') return `log ${id} ${data.text}`;
  return event === 'end' ? `end ${id} ${data.status}` : `progress ${id} ${data.progress}`;
}

function watch(uid: string, id = '0.0', signal = NEVER): AsyncGenerator<TaskEvent, void, undefined> {
  return lab.runner.watch(uid, parseEventPosition(id) ?? assert.fail(), signal);
}

async function collect(uid: string, id?: string): Promise<string[]> {
  return (await Array.fromAsync(watch(uid, id))).map(short);
}

/** Follows a task in the background, and notes what it is told. */
function follow(uid: string, id?: string): { readonly told: string[]; readonly ended: Promise<void> } {
  const told: string[] = [];
  const ended = (async () => {
    for await (const event of watch(uid, id)) told.push(short(event));
  })();
  return { told, ended };
}

async function begin(): Promise<string> {
  const { uid } = lab.begin('a');
  await settle();
  return uid;
}

describe('the id of an event', () => {
  it('is the position after it', () => {
    assert.deepEqual(parseEventPosition('0.0'), FIRST_POSITION);
    assert.deepEqual(parseEventPosition('12.345'), { lines: 12, reports: 345 });
    assert.deepEqual(parseEventPosition('999999999.999999999'), { lines: 999_999_999, reports: 999_999_999 });
  });

  for (const id of [
    '',
    '1',
    '1.',
    '.1',
    '-1.0',
    '1.0.0',
    ' 1.0',
    '1.0\n',
    'a.b',
    '1e3.0',
    '1234567890.0',
    '0.1234567890',
  ]) {
    it(`is none: ${JSON.stringify(id)}`, () => assert.equal(parseEventPosition(id), undefined));
  }

  it('is past the end when it names the end, which counts as one more line', () => {
    assert.equal(isPastEnd({ lines: 3, reports: 7 }, 3), false);
    assert.equal(isPastEnd({ lines: 4, reports: 0 }, 3), true);
    assert.equal(isPastEnd({ lines: 5, reports: 0 }, 3), false); // That never was.
    assert.equal(isPastEnd({ lines: 0, reports: 0 }, 0), false);
  });
});

describe('the events of a task that has ended', () => {
  it('are its lines and its end, from any of them on', async () => {
    const uid = await begin();
    for (const text of ['one', 'two', 'three']) a.last.context.log('info', text);
    a.last.context.report({ bytesDone: 1, bytesTotal: 2 });
    a.last.complete('done');
    await settle();
    const whole = ['log 1.0 one', 'log 2.0 two', 'log 3.0 three', 'end 4.0 complete'];
    for (const running of [true, false]) {
      if (!running) lab.restart();
      assert.deepEqual(await collect(uid), whole);
      assert.deepEqual(await collect(uid, '0.9'), whole);
      for (const [index, event] of whole.entries()) {
        const id = event.split(' ')[1] ?? '';
        assert.deepEqual(await collect(uid, id), whole.slice(index + 1), id);
        assert.deepEqual(await collect(uid, id.replace('.0', '.4')), whole.slice(index + 1), id);
        assert.equal(lab.runner.isPastEnd(uid, parseEventPosition(id) ?? FIRST_POSITION), id === '4.0', id);
      }
      assert.deepEqual(await collect(uid, '5.0'), whole); // Lines may be lost with the power.
      const [last] = (await Array.fromAsync(watch(uid, '3.0'))).map(({ data }) => data);
      assert.deepEqual(last, lab.runner.find(uid));
    }
  });

  it('are its end alone where it has no lines', async () => {
    const uid = await begin();
    a.last.complete();
    await settle();
    assert.deepEqual(await collect(uid), ['end 1.0 complete']);
    assert.deepEqual(await collect(uid, '1.0'), []);
  });

  it('are none for somebody who has left', async () => {
    const uid = await begin();
    a.last.context.log('info', 'one');
    a.last.complete();
    await settle();
    assert.deepEqual(await Array.fromAsync(watch(uid, '0.0', AbortSignal.abort())), []);
  });
});

describe('the events of a running task', () => {
  it('are lines at once, progress, and the end', async () => {
    const uid = await begin();
    a.last.context.log('info', 'one');
    const { told, ended } = follow(uid);
    await settle();
    assert.deepEqual(told, ['log 1.0 one', 'progress 1.1 0']);
    for (const lines of [0, 1, 2, 99]) assert.equal(lab.runner.isPastEnd(uid, { lines, reports: 0 }), false);
    await sleep(PAUSE_MS);
    a.last.context.report({ bytesDone: 1, bytesTotal: 2 });
    await settle();
    assert.deepEqual(told.slice(2), ['progress 1.2 50']);
    await sleep(PAUSE_MS);
    a.last.context.log('warn', 'two');
    await settle();
    assert.deepEqual(told.slice(3), ['log 2.0 two']);
    a.last.context.report({ bytesDone: 2, bytesTotal: 2 });
    await settle();
    assert.deepEqual(told.slice(4), ['progress 2.1 99']);
    await sleep(PAUSE_MS);
    a.last.fail(new LoaderError('cdn_error', 'No.'));
    await ended;
    assert.deepEqual(told.slice(5), ['log 3.0 No.', 'end 4.0 failed']);
    assert.deepEqual(await collect(uid, '2.1'), ['log 3.0 No.', 'end 4.0 failed']);
  });

  it('tell progress of any of the three numbers, and none that is told already', async () => {
    const uid = await begin();
    const { told, ended } = follow(uid);
    const reports = [
      [{ bytesDone: 0, bytesTotal: 1_000_000 }, true],
      [{ bytesDone: 0, bytesTotal: 1_000_000 }, false],
      [{ bytesDone: 1, bytesTotal: 1_000_000 }, true],
      [{ bytesDone: 0, bytesTotal: 1_000_000 }, false],
      [{ bytesDone: 1, bytesTotal: 1_000_000, percent: 1 }, true],
      [{ bytesDone: 1, bytesTotal: null, percent: 1 }, true],
    ] as const;
    let count = 1;
    for (const [report, isTold] of reports) {
      await sleep(PAUSE_MS);
      assert.equal(told.length, count);
      a.last.context.report(report);
      await settle();
      count += isTold ? 1 : 0;
      assert.equal(told.length, count, JSON.stringify(report));
    }
    a.last.complete();
    await ended;
  });

  it('tell progress twenty times a second at most, and then the newest', async () => {
    const uid = await begin();
    const { told, ended } = follow(uid);
    const start = performance.now();
    for (let percent = 1; percent <= 99; percent++) {
      a.last.context.report({ bytesDone: percent, bytesTotal: null, percent });
      if (percent % 10 === 0) await sleep(5);
    }
    await sleep(PAUSE_MS);
    const elapsedMs = performance.now() - start;
    assert.ok(told.length >= 2 && told.length <= 2 + elapsedMs / 50, told.join());
    assert.match(told.at(-1) ?? '', / 99$/);
    const shown = told.map((event) => Number(event.split(' ')[2]));
    assert.deepEqual(
      shown,
      shown.toSorted((x, y) => x - y),
    );
    a.last.complete();
    await ended;
    assert.equal(told.at(-1), 'end 1.0 complete');
  });

  it('miss nothing while their reader is busy, and number it as others see it', async () => {
    const uid = await begin();
    a.last.context.log('info', 'one');
    const slow = watch(uid);
    const told = [short((await slow.next()).value as TaskEvent)];
    a.last.context.log('info', 'two');
    a.last.context.report({ bytesDone: 1, bytesTotal: 2 });
    a.last.context.log('info', 'three');
    for (let event = await slow.next(); ; event = await slow.next()) {
      if (event.done === true) break;
      told.push(short(event.value));
      if (told.length === 3) {
        a.last.context.log('info', 'four');
        a.last.complete();
        await settle();
      }
    }
    const lines = ['log 1.0 one', 'log 2.0 two', 'log 3.0 three', 'log 4.0 four', 'end 5.0 complete'];
    assert.deepEqual(
      told.filter((event) => !event.startsWith('progress')),
      lines,
    );
    assert.deepEqual(await collect(uid), lines);
  });

  it('end with the task as it stays, whatever its run says later', async () => {
    const uid = await begin();
    a.last.context.log('info', 'one');
    const slow = watch(uid);
    await slow.next();
    a.last.complete('done');
    await settle();
    a.last.context.report({ bytesDone: 7, bytesTotal: 7 });
    a.last.context.log('info', 'late');
    const rest = await Array.fromAsync(slow);
    assert.deepEqual(
      rest.map(short).filter((event) => !event.startsWith('progress')),
      ['end 2.0 complete'],
    );
    assert.deepEqual(rest.at(-1)?.data, lab.stored(uid));
  });

  it('go on from each id with exactly the rest', async () => {
    const uid = await begin();
    const { told, ended } = follow(uid);
    const followers: { id: string; told: string[]; ended: Promise<void> }[] = [];
    for (let step = 1; step <= 4; step++) {
      a.last.context.log('info', `line ${step}`);
      await settle();
      a.last.context.report({ bytesDone: step, bytesTotal: 10 });
      await sleep(PAUSE_MS);
      for (const event of told) {
        const id = event.split(' ')[1] ?? '';
        followers.push({ id, ...follow(uid, id) });
      }
    }
    a.last.complete();
    await Promise.all([ended, ...followers.map((follower) => follower.ended)]);
    const stored = (events: readonly string[]) => events.filter((event) => !event.startsWith('progress'));
    for (const follower of followers) {
      const index = told.findIndex((event) => event.split(' ')[1] === follower.id);
      assert.deepEqual(stored(follower.told), stored(told.slice(index + 1)), follower.id);
      const ids = [follower.id, ...follower.told.map((event) => event.split(' ')[1] ?? '')];
      const places = ids.map((id) => Number(id.split('.')[0]) * 1e9 + Number(id.split('.')[1]));
      assert.deepEqual(
        places,
        [...new Set(places)].sort((x, y) => x - y),
        `ids of one who came back at ${follower.id} grow`,
      );
    }
  });

  it('end at once when their reader leaves, also while nothing happens', async () => {
    const uid = await begin();
    const leave = new AbortController();
    const events = watch(uid, '0.0', leave.signal);
    await events.next();
    await sleep(PAUSE_MS);
    const next = events.next();
    await settle();
    leave.abort();
    assert.equal((await next).done, true);
    a.last.complete();
  });

  it('begin anew for somebody who saw lines that are lost', async () => {
    const uid = await begin();
    a.last.context.log('info', 'one');
    const { told, ended } = follow(uid, '3.7');
    const exact = follow(uid, '1.7');
    const next = follow(uid, '2.0');
    await settle();
    assert.deepEqual(next.told, told);
    assert.deepEqual(told, ['log 1.0 one', 'progress 1.1 0']);
    assert.deepEqual(exact.told, ['progress 1.8 0']);
    a.last.complete();
    await Promise.all([ended, exact.ended, next.ended]);
    assert.equal(told.at(-1), 'end 2.0 complete');
  });

  it('go on after the Loader was started again, with the lines and the end that it noted', async () => {
    const uid = await begin();
    a.last.context.log('info', 'one');
    const { told } = follow(uid);
    await settle();
    assert.deepEqual(told, ['log 1.0 one', 'progress 1.1 0']);
    lab.restart();
    const error = 'The Loader died while the task ran.';
    assert.deepEqual(await collect(uid, '1.1'), [`log 2.0 ${error}`, 'end 3.0 interrupted']);
  });

  it('fail when the lines can not be read', async () => {
    const followed = { task: makeTask({ uid: 'u' }), lines: 1, changed: undefined };
    const failure = new LoaderError('task_store_unavailable', 'x');
    const events = followTask(
      followed,
      FIRST_POSITION,
      () => {
        throw failure;
      },
      NEVER,
    );
    await assert.rejects(Array.fromAsync(events), failure);
  });
});

describe('following a task', () => {
  /** A running task, line by line. */
  class Followed implements FollowedTask {
    task = makeTask({ uid: 'u' });
    lines = 0;
    #change = Promise.withResolvers<undefined>();

    get changed(): Promise<undefined> {
      return this.#change.promise;
    }

    addLine(): void {
      this.lines++;
      this.#announce();
    }

    end(): void {
      this.task = makeTask({ uid: 'u', status: 'complete' });
      this.#announce();
    }

    #announce(): void {
      const { resolve } = this.#change;
      this.#change = Promise.withResolvers<undefined>();
      resolve(undefined);
    }

    read = (from: number): TaskLogLine[] =>
      Array.from({ length: this.lines - from }, (_, index) => makeLine(from + index + 1));
  }

  it('reads no lines where there are none', async () => {
    const reads: number[] = [];
    const read = (from: number) => {
      reads.push(from);
      return [makeLine(from + 1)];
    };
    const position: EventPosition = { lines: 4, reports: 2 };
    const ended = { task: makeTask({ uid: 'u', status: 'failed' }), changed: undefined };
    assert.deepEqual((await Array.fromAsync(followTask({ ...ended, lines: 4 }, position, read, NEVER))).map(short), [
      'end 5.0 failed',
    ]);
    assert.deepEqual(reads, []);
    await Array.fromAsync(followTask({ ...ended, lines: 5 }, position, read, NEVER));
    assert.deepEqual(reads, [4]);
  });

  it('ends where nothing changes any more', async () => {
    const stuck = { task: makeTask({ uid: 'u' }), lines: 0, changed: undefined };
    assert.deepEqual((await Array.fromAsync(followTask(stuck, FIRST_POSITION, () => [], NEVER))).map(short), [
      'progress 0.1 0',
    ]);
  });

  it('leaves no listener behind', async () => {
    const { signal } = new AbortController();
    const followed = new Followed();
    const events = followTask(followed, FIRST_POSITION, () => [], signal);
    await events.next();
    const next = events.next();
    await sleep(PAUSE_MS);
    assert.equal(getEventListeners(signal, 'abort').length, 1);
    followed.end();
    await next;
    await events.return();
    assert.equal(getEventListeners(signal, 'abort').length, 0);
  });

  it('for days holds no more memory than for minutes', async () => {
    setFlagsFromString('--expose-gc');
    const collectGarbage = runInNewContext('gc') as () => void;
    const followed = new Followed();
    const events = followTask(followed, FIRST_POSITION, followed.read, NEVER);
    await events.next();
    const follow = async (count: number) => {
      for (let line = 0; line < count; line++) {
        followed.addLine();
        await events.next();
      }
      await settle();
      collectGarbage();
      return process.memoryUsage().heapUsed;
    };
    const count = 50_000; // As many as there are in less than an hour.
    const heapBefore = await follow(20_000);
    const grown = (await follow(count)) - heapBefore;
    await events.return();
    assert.ok(grown / count < 100, `${(grown / count).toFixed(1)} bytes for each event`);
  });
});
