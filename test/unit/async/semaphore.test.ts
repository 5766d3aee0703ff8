import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Semaphore } from '../../../src/async/semaphore.ts';

const NEVER = new AbortController().signal;

/** Acquires, and tells afterwards whether it was let in. */
function enter(semaphore: Semaphore, signal = NEVER): { readonly done: Promise<void>; isIn: boolean } {
  const entry = { done: Promise.resolve(), isIn: false };
  entry.done = semaphore.acquire(signal).then(() => {
    entry.isIn = true;
  });
  entry.done.catch(() => undefined);
  return entry;
}

describe('a semaphore', () => {
  for (const count of [1, 2, 5]) {
    it(`lets ${count} in at once, and each other when one leaves`, async () => {
      const semaphore = new Semaphore(count);
      const entries = Array.from({ length: count + 3 }, () => enter(semaphore));
      for (let left = 0; left <= 3; left++) {
        await turn();
        assert.equal(entries.filter(({ isIn }) => isIn).length, count + left);
        semaphore.release();
      }
    });
  }

  it('lets those who wait in by their order', async () => {
    const semaphore = new Semaphore(1);
    await semaphore.acquire(NEVER);
    const order: number[] = [];
    const waiting = [0, 1, 2, 3].map(async (index) => {
      await semaphore.acquire(NEVER);
      order.push(index);
      semaphore.release();
    });
    semaphore.release();
    await Promise.all(waiting);
    assert.deepEqual(order, [0, 1, 2, 3]);
  });

  it('lets nobody in before one who waits', async () => {
    const semaphore = new Semaphore(1);
    await semaphore.acquire(NEVER);
    const first = enter(semaphore);
    semaphore.release();
    const second = enter(semaphore);
    await turn();
    assert.deepEqual([first.isIn, second.isIn], [true, false]);
  });

  it('is free again for as many as before when all have left', async () => {
    const semaphore = new Semaphore(2);
    for (let round = 0; round < 3; round++) {
      const entries = [enter(semaphore), enter(semaphore), enter(semaphore)];
      await turn();
      assert.deepEqual(
        entries.map(({ isIn }) => isIn),
        [true, true, false],
      );
      for (let left = 0; left < 3; left++) semaphore.release();
      await turn();
    }
  });

  it('never holds more than its number, whatever comes and goes', async () => {
    const semaphore = new Semaphore(3);
    let inside = 0;
    let most = 0;
    const work = async (index: number) => {
      const signal = index % 7 === 0 ? AbortSignal.timeout(index % 3) : NEVER;
      try {
        await semaphore.acquire(signal);
      } catch {
        return;
      }
      most = Math.max(most, ++inside);
      for (let at = 0; at < index % 4; at++) await turn();
      inside--;
      semaphore.release();
    };
    await Promise.all(Array.from({ length: 200 }, (_, index) => work(index)));
    assert.deepEqual([most, inside], [3, 0]);
    const after = [1, 2, 3, 4].map(() => enter(semaphore));
    await turn();
    assert.deepEqual(
      after.map(({ isIn }) => isIn),
      [true, true, true, false],
    );
  });
});

describe('one who gives up', () => {
  it('gets the reason of the signal', async () => {
    const semaphore = new Semaphore(1);
    const reason = new Error('the load has failed');
    await assert.rejects(semaphore.acquire(AbortSignal.abort(reason)), reason);
    await semaphore.acquire(NEVER);
    const abort = new AbortController();
    const waiting = semaphore.acquire(abort.signal);
    abort.abort(reason);
    await assert.rejects(waiting, reason);
  });

  it('gets an Error for a reason that is none', async () => {
    const semaphore = new Semaphore(0);
    const abort = new AbortController();
    const waiting = semaphore.acquire(abort.signal);
    abort.abort('just so');
    await assert.rejects(waiting, { message: 'aborted', cause: 'just so' });
  });

  it('takes no place, neither before nor while waiting', async () => {
    const semaphore = new Semaphore(1);
    await assert.rejects(semaphore.acquire(AbortSignal.abort()));
    await semaphore.acquire(NEVER);
    const abort = new AbortController();
    const gone = enter(semaphore, abort.signal);
    const patient = enter(semaphore);
    abort.abort();
    semaphore.release();
    await turn();
    assert.deepEqual([gone.isIn, patient.isIn], [false, true]);
    await assert.rejects(gone.done);
  });

  it('just after being let in is in', async () => {
    const semaphore = new Semaphore(1);
    await semaphore.acquire(NEVER);
    const abort = new AbortController();
    const entry = enter(semaphore, abort.signal);
    const next = enter(semaphore);
    semaphore.release();
    abort.abort();
    await turn();
    assert.deepEqual([entry.isIn, next.isIn], [true, false]);
    semaphore.release();
    await turn();
    assert.ok(next.isIn);
  });

  it('leaves no listener at the signal, nor does one who was let in', async () => {
    const semaphore = new Semaphore(1);
    const { signal } = new AbortController();
    let listeners = 0;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = (...args: Parameters<typeof add>) => {
      listeners++;
      add(...args);
    };
    signal.removeEventListener = (...args: Parameters<typeof remove>) => {
      listeners--;
      remove(...args);
    };
    const entries = [1, 2, 3].map(() => enter(semaphore, signal));
    for (const { done } of entries) {
      await done;
      semaphore.release();
    }
    assert.equal(listeners, 0);
  });
});
