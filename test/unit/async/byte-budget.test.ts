import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { NEVER } from '../../../src/async/abort.ts';
import { ByteBudget, type Share } from '../../../src/async/byte-budget.ts';

/** Asks for a share, and tells afterwards whether it is there. */
function ask(budget: ByteBudget, bytes: number, signal = NEVER) {
  const question = { share: undefined as Share | undefined, error: undefined as unknown };
  budget.acquire(bytes, signal).then(
    (share) => (question.share = share),
    (error: unknown) => (question.error = error),
  );
  return question;
}

describe('a budget of bytes', () => {
  it('gives out shares up to its total, and the next one when one is given back', async () => {
    const budget = new ByteBudget(100);
    const first = await budget.acquire(60, NEVER);
    using _second = await budget.acquire(40, NEVER);
    const third = ask(budget, 1);
    await turn();
    assert.deepEqual([third.share, budget.held], [undefined, 100]);
    first[Symbol.dispose]();
    await turn();
    assert.ok(third.share !== undefined);
    assert.equal(budget.held, 41);
  });

  it('serves those who wait in their order: a large share is not overtaken by small ones', async () => {
    const budget = new ByteBudget(100);
    const first = await budget.acquire(50, NEVER);
    const large = ask(budget, 100);
    const small = ask(budget, 10);
    await turn();
    assert.deepEqual([large.share, small.share], [undefined, undefined]);
    first[Symbol.dispose]();
    await turn();
    assert.deepEqual([large.share !== undefined, small.share !== undefined], [true, false]);
    large.share?.[Symbol.dispose]();
    await turn();
    assert.equal(budget.held, 10);
  });

  it('gives the whole to those who ask for more', async () => {
    const budget = new ByteBudget(100);
    using _share = await budget.acquire(1_000, NEVER);
    assert.equal(budget.held, 100);
  });

  it('takes a share back once', async () => {
    const budget = new ByteBudget(100);
    const share = await budget.acquire(30, NEVER);
    using _other = await budget.acquire(30, NEVER);
    share[Symbol.dispose]();
    share[Symbol.dispose]();
    assert.equal(budget.held, 30);
  });

  it('ends a wait with the reason of its signal, and lets those behind it in', async () => {
    const budget = new ByteBudget(100);
    using _first = await budget.acquire(50, NEVER);
    const abort = new AbortController();
    const large = ask(budget, 100, abort.signal);
    const small = ask(budget, 10);
    const reason = new Error('the client has left');
    abort.abort(reason);
    await turn();
    assert.equal(large.error, reason);
    assert.ok(small.share !== undefined);
    assert.equal(budget.held, 60);
    await assert.rejects(budget.acquire(1, abort.signal), reason);
    assert.equal(budget.held, 60);
  });

  it('loses no share that comes together with the abort', async () => {
    const budget = new ByteBudget(100);
    const first = await budget.acquire(100, NEVER);
    const abort = new AbortController();
    const second = ask(budget, 100, abort.signal);
    await turn();
    first[Symbol.dispose]();
    abort.abort(new Error('too late'));
    await turn();
    second.share?.[Symbol.dispose]();
    assert.equal(budget.held, 0);
  });

  it('never holds more than its total, and serves all, in any order of 10,000 shares', async () => {
    const budget = new ByteBudget(1_000);
    let served = 0;
    await Promise.all(
      Array.from({ length: 10_000 }, async (_, index) => {
        using _share = await budget.acquire((index * 7919) % 1_100, NEVER);
        assert.ok(budget.held <= 1_000);
        await turn();
        served++;
      }),
    );
    assert.deepEqual([served, budget.held], [10_000, 0]);
  });
});
