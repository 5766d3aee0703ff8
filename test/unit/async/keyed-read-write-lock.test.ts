import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { PublicationLock } from '../../../src/async/keyed-read-write-lock.ts';

const NEVER = new AbortController().signal;

let lock = new PublicationLock();
let events: string[] = [];

beforeEach(() => {
  lock = new PublicationLock();
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
    finish: () => {
      gate.resolve(undefined);
    },
    fail: () => {
      gate.reject(new Error(`${name} failed`));
    },
  };
}

/** Lets all that can go on go on. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

describe('the publication lock', () => {
  it('answers what the work answers', async () => {
    assert.equal(await lock.shared('r', () => Promise.resolve(1), NEVER), 1);
    assert.equal(await lock.exclusive('r', () => Promise.resolve(2)), 2);
  });

  it('lets shared works run together', async () => {
    const works = ['a', 'b', 'c'].map(makeWork);
    const running = works.map((work) => lock.shared('r', work.run, NEVER));
    await settle();
    assert.deepEqual(events, ['+a', '+b', '+c']);
    for (const work of works) work.finish();
    assert.deepEqual(await Promise.all(running), ['a', 'b', 'c']);
  });

  it('lets an exclusive work run alone, after all shared ones before it', async () => {
    const [a, b, x] = [makeWork('a'), makeWork('b'), makeWork('x')];
    const running = [lock.shared('r', a.run, NEVER), lock.shared('r', b.run, NEVER), lock.exclusive('r', x.run)];
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
    const running = [lock.exclusive('r', x.run), lock.exclusive('r', y.run)];
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
      lock.shared('r', works.a.run, NEVER),
      lock.exclusive('r', works.x.run),
      lock.shared('r', works.b.run, NEVER),
      lock.exclusive('r', works.y.run),
      lock.shared('r', works.c.run, NEVER),
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
    const running = [lock.exclusive('r', x.run), lock.shared('r', a.run, NEVER), lock.shared('r', b.run, NEVER)];
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
    const running = [
      lock.shared('r', a.run, NEVER),
      lock.exclusive('r', x.run),
      lock.shared('r', b.run, NEVER),
      lock.exclusive('r', y.run),
    ];
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
    const shared = lock.shared('r', a.run, NEVER);
    const exclusive = lock.exclusive('r', x.run);
    const last = lock.shared('r', b.run, NEVER);
    await settle();
    a.fail();
    await assert.rejects(shared, /a failed/);
    await settle();
    x.fail();
    await assert.rejects(exclusive, /x failed/);
    b.finish();
    assert.equal(await last, 'b');
  });

  it('is released by a work that throws before it begins', async () => {
    await assert.rejects(
      lock.exclusive('r', () => {
        throw new Error('at once');
      }),
      /at once/,
    );
    assert.equal(await lock.exclusive('r', () => Promise.resolve(1)), 1);
    assert.equal(lock.size, 0);
  });

  it('lets those go who wait no longer, and keeps nobody waiting for them', async () => {
    const [x, a, y] = [makeWork('x'), makeWork('a'), makeWork('y')];
    const abort = new AbortController();
    const first = lock.exclusive('r', x.run);
    const waiting = lock.shared('r', a.run, abort.signal);
    const last = lock.exclusive('r', y.run);
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
    const running = [lock.exclusive('r', x.run), lock.exclusive('s', y.run)];
    await settle();
    assert.deepEqual(events, ['+x', '+y']);
    assert.equal(lock.size, 2);
    x.finish();
    y.finish();
    await Promise.all(running);
  });

  it('forgets a resource when nobody holds it or waits for it, whatever the works ended with', async () => {
    const [x, a, y] = [makeWork('x'), makeWork('a'), makeWork('y')];
    const running = [lock.exclusive('r', x.run), lock.shared('r', a.run, NEVER), lock.exclusive('r', y.run)];
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
