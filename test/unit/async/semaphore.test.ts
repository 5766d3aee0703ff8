import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { NEVER } from '../../../src/async/abort.ts';
import { Semaphore, type Permit } from '../../../src/async/semaphore.ts';

/** A semaphore whose permits are given back in the order in which they were given out. */
class Gate {
  readonly #semaphore: Semaphore;
  readonly #permits: Permit[] = [];

  constructor(permits: number) {
    this.#semaphore = new Semaphore(permits);
  }

  async acquire(signal: AbortSignal): Promise<void> {
    this.#permits.push(await this.#semaphore.acquire(signal));
  }

  release(): void {
    const permit = this.#permits.shift();
    assert.ok(permit, 'a permit is given back that nobody has');
    permit[Symbol.dispose]();
  }
}

/** Acquires, and tells afterwards whether it was let in. */
function enter(gate: Gate, signal = NEVER): { readonly done: Promise<void>; isIn: boolean } {
  const entry = { done: Promise.resolve(), isIn: false };
  entry.done = gate.acquire(signal).then(() => {
    entry.isIn = true;
  });
  entry.done.catch(() => undefined);
  return entry;
}

describe('a semaphore', () => {
  for (const count of [1, 2, 5]) {
    it(`lets ${count} in at once, and each other when one leaves`, async () => {
      const gate = new Gate(count);
      const entries = Array.from({ length: count + 3 }, () => enter(gate));
      for (let left = 0; left <= 3; left++) {
        await turn();
        assert.equal(entries.filter(({ isIn }) => isIn).length, count + left);
        gate.release();
      }
    });
  }

  it('lets those who wait in by their order', async () => {
    const gate = new Gate(1);
    await gate.acquire(NEVER);
    const order: number[] = [];
    const waiting = [0, 1, 2, 3].map(async (index) => {
      await gate.acquire(NEVER);
      order.push(index);
      gate.release();
    });
    gate.release();
    await Promise.all(waiting);
    assert.deepEqual(order, [0, 1, 2, 3]);
  });

  it('lets nobody in before one who waits', async () => {
    const gate = new Gate(1);
    await gate.acquire(NEVER);
    const first = enter(gate);
    gate.release();
    const second = enter(gate);
    await turn();
    assert.deepEqual([first.isIn, second.isIn], [true, false]);
  });

  it('is free again for as many as before when all have left', async () => {
    const gate = new Gate(2);
    for (let round = 0; round < 3; round++) {
      const entries = [enter(gate), enter(gate), enter(gate)];
      await turn();
      assert.deepEqual(
        entries.map(({ isIn }) => isIn),
        [true, true, false],
      );
      for (let left = 0; left < 3; left++) {
        gate.release();
        await turn();
      }
    }
  });

  it('never holds more than its number, whatever comes and goes', async () => {
    const gate = new Gate(3);
    let inside = 0;
    let most = 0;
    const work = async (index: number) => {
      const signal = index % 7 === 0 ? AbortSignal.timeout(index % 3) : NEVER;
      try {
        await gate.acquire(signal);
      } catch {
        return;
      }
      most = Math.max(most, ++inside);
      for (let at = 0; at < index % 4; at++) await turn();
      inside--;
      gate.release();
    };
    await Promise.all(Array.from({ length: 200 }, (_, index) => work(index)));
    assert.deepEqual([most, inside], [3, 0]);
    const after = [1, 2, 3, 4].map(() => enter(gate));
    await turn();
    assert.deepEqual(
      after.map(({ isIn }) => isIn),
      [true, true, true, false],
    );
  });
});

describe('one who gives up', () => {
  it('gets the reason of the signal', async () => {
    const gate = new Gate(1);
    const reason = new Error('the load has failed');
    await assert.rejects(gate.acquire(AbortSignal.abort(reason)), reason);
    await gate.acquire(NEVER);
    const abort = new AbortController();
    const waiting = gate.acquire(abort.signal);
    abort.abort(reason);
    await assert.rejects(waiting, reason);
  });

  it('gets an Error for a reason that is none', async () => {
    const gate = new Gate(1);
    await gate.acquire(NEVER);
    const abort = new AbortController();
    const waiting = gate.acquire(abort.signal);
    abort.abort('just so');
    await assert.rejects(waiting, { message: 'aborted', cause: 'just so' });
  });

  it('takes no place, neither before nor while waiting', async () => {
    const gate = new Gate(1);
    await assert.rejects(gate.acquire(AbortSignal.abort()));
    await gate.acquire(NEVER);
    const abort = new AbortController();
    const gone = enter(gate, abort.signal);
    const patient = enter(gate);
    abort.abort();
    gate.release();
    await turn();
    assert.deepEqual([gone.isIn, patient.isIn], [false, true]);
    await assert.rejects(gone.done);
  });

  it('just after being let in is in', async () => {
    const gate = new Gate(1);
    await gate.acquire(NEVER);
    const abort = new AbortController();
    const entry = enter(gate, abort.signal);
    const next = enter(gate);
    gate.release();
    abort.abort();
    await turn();
    assert.deepEqual([entry.isIn, next.isIn], [true, false]);
    gate.release();
    await turn();
    assert.ok(next.isIn);
  });

  it('leaves no listener at the signal, nor does one who was let in', async () => {
    const gate = new Gate(1);
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
    const entries = [1, 2, 3].map(() => enter(gate, signal));
    for (const { done } of entries) {
      await done;
      gate.release();
    }
    assert.equal(listeners, 0);
  });
});

describe('a permit', () => {
  it('is given back once, however often it is disposed of', async () => {
    const semaphore = new Semaphore(1);
    const permit = await semaphore.acquire(NEVER);
    permit[Symbol.dispose]();
    permit[Symbol.dispose]();
    using _held = await semaphore.acquire(NEVER);
    let isIn = false;
    void semaphore.acquire(NEVER).then(() => {
      isIn = true;
    });
    await turn();
    assert.equal(isIn, false);
  });
});
