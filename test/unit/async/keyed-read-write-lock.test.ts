import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { KeyedReadWriteLock } from '../../../src/async/keyed-read-write-lock.ts';
import { settle } from '../../../lab/waiting.ts';

let lock = new KeyedReadWriteLock();
let events: string[] = [];

beforeEach(() => {
  lock = new KeyedReadWriteLock();
  events = [];
});

/** Work that notes its begin and end, and lasts until `finish`. */
function makeWork(name: string) {
  const gate = Promise.withResolvers<undefined>();
  return {
    run: async () => {
      events.push(`+${name}`);
      await gate.promise;
      events.push(`-${name}`);
      return name;
    },
    finish: () => gate.resolve(undefined),
    fail: () => {
      gate.reject(new Error(`${name} failed`));
    },
  };
}

async function shared<T>(key: string, work: () => Promise<T>, signal = NEVER): Promise<T> {
  using _lock = await lock.shared(key, signal);
  return await work();
}

async function exclusive<T>(key: string, work: () => Promise<T>): Promise<T> {
  using _lock = await lock.exclusive(key);
  return await work();
}

describe('a lock of readers and writers', () => {
  it('answers what the work answers', async () => {
    assert.equal(await shared('r', () => Promise.resolve(1)), 1);
    assert.equal(await exclusive('r', () => Promise.resolve(2)), 2);
  });

  it('lets shared works run together', async () => {
    const works = ['a', 'b', 'c'].map(makeWork);
    const running = works.map((work) => shared('r', work.run));
    await settle();
    assert.deepEqual(events, ['+a', '+b', '+c']);
    for (const work of works) work.finish();
    assert.deepEqual(await Promise.all(running), ['a', 'b', 'c']);
  });

  it('lets an exclusive work run alone, after all shared ones before it', async () => {
    const [a, b, x] = [makeWork('a'), makeWork('b'), makeWork('x')];
    const running = [shared('r', a.run), shared('r', b.run), exclusive('r', x.run)];
    await settle();
    assert.deepEqual(events, ['+a', '+b']);
    b.finish();
    await settle();
    assert.deepEqual(events, ['+a', '+b', '-b']);
    a.finish();
    await settle();
    assert.deepEqual(events, ['+a', '+b', '-b', '-a', '+x']);
    x.finish();
    await Promise.all(running);
  });

  it('lets two exclusive works run one after the other', async () => {
    const [x, y] = [makeWork('x'), makeWork('y')];
    const running = [exclusive('r', x.run), exclusive('r', y.run)];
    await settle();
    assert.deepEqual(events, ['+x']);
    x.finish();
    await settle();
    assert.deepEqual(events, ['+x', '-x', '+y']);
    y.finish();
    await Promise.all(running);
  });

  it('keeps the order of arrival, so that a stream of loads does not keep an upload waiting', async () => {
    const works = { a: makeWork('a'), x: makeWork('x'), b: makeWork('b'), y: makeWork('y'), c: makeWork('c') };
    const running = [
      shared('r', works.a.run),
      exclusive('r', works.x.run),
      shared('r', works.b.run),
      exclusive('r', works.y.run),
      shared('r', works.c.run),
    ];
    for (const work of Object.values(works)) {
      await settle();
      work.finish();
    }
    await Promise.all(running);
    assert.deepEqual(events, ['+a', '-a', '+x', '-x', '+b', '-b', '+y', '-y', '+c', '-c']);
  });

  it('lets the shared works that came after an exclusive one begin together when it ends', async () => {
    const [x, a, b] = [makeWork('x'), makeWork('a'), makeWork('b')];
    const running = [exclusive('r', x.run), shared('r', a.run), shared('r', b.run)];
    await settle();
    assert.deepEqual(events, ['+x']);
    x.finish();
    await settle();
    assert.deepEqual(events, ['+x', '-x', '+a', '+b']);
    a.finish();
    b.finish();
    await Promise.all(running);
  });

  it('makes an exclusive work wait for the shared ones on both sides of an earlier exclusive one', async () => {
    const [a, x, b, y] = [makeWork('a'), makeWork('x'), makeWork('b'), makeWork('y')];
    const running = [shared('r', a.run), exclusive('r', x.run), shared('r', b.run), exclusive('r', y.run)];
    a.finish();
    x.finish();
    await settle();
    assert.deepEqual(events, ['+a', '-a', '+x', '-x', '+b']);
    b.finish();
    await settle();
    assert.equal(events.at(-1), '+y');
    y.finish();
    await Promise.all(running);
  });

  it('is released by a work that fails, whose failure is its caller’s alone', async () => {
    const [a, x, b] = [makeWork('a'), makeWork('x'), makeWork('b')];
    const reading = shared('r', a.run);
    const writing = exclusive('r', x.run);
    const last = shared('r', b.run);
    await settle();
    a.fail();
    await assert.rejects(reading, /a failed/);
    await settle();
    x.fail();
    await assert.rejects(writing, /x failed/);
    b.finish();
    assert.equal(await last, 'b');
  });

  it('is released by a work that throws before it begins', async () => {
    await assert.rejects(
      exclusive('r', () => {
        throw new Error('at once');
      }),
      /at once/,
    );
    assert.equal(await exclusive('r', () => Promise.resolve(1)), 1);
    assert.equal(lock.size, 0);
  });

  it('lets those go who wait no longer, and keeps nobody waiting for them', async () => {
    const [x, a, y] = [makeWork('x'), makeWork('a'), makeWork('y')];
    const abort = new AbortController();
    const first = exclusive('r', x.run);
    const waiting = shared('r', a.run, abort.signal);
    const last = exclusive('r', y.run);
    await settle();
    abort.abort(new Error('left'));
    await assert.rejects(waiting, /left/);
    assert.deepEqual(events, ['+x']);
    x.finish();
    await first;
    await settle();
    assert.deepEqual(events, ['+x', '-x', '+y']);
    y.finish();
    await last;
    assert.equal(lock.size, 0);
  });

  it('keeps resources apart', async () => {
    const [x, y] = [makeWork('x'), makeWork('y')];
    const running = [exclusive('r', x.run), exclusive('s', y.run)];
    await settle();
    assert.deepEqual(events, ['+x', '+y']);
    assert.equal(lock.size, 2);
    x.finish();
    y.finish();
    await Promise.all(running);
  });

  it('forgets a resource when nobody holds it or waits for it, whatever the works ended with', async () => {
    const [x, a, y] = [makeWork('x'), makeWork('a'), makeWork('y')];
    const running = [exclusive('r', x.run), shared('r', a.run), exclusive('r', y.run)];
    const settled = Promise.allSettled(running);
    for (const fail of [x.fail, a.fail]) {
      await settle();
      assert.equal(lock.size, 1);
      fail();
    }
    await settle();
    assert.equal(lock.size, 1);
    y.finish();
    await settled;
    assert.equal(lock.size, 0);
  });
});
