import assert from 'node:assert/strict';
import { syncBuiltinESMExports } from 'node:module';
import { describe, it, type TestContext } from 'node:test';
import { RetryCounter, type RetryPolicy } from '../../../src/async/retry.ts';

const POLICY: RetryPolicy = { attempts: 3, baseDelayMs: 1, isRetryable: () => true };
const { signal } = new AbortController();

describe('work that is tried again', () => {
  it('is done once where it succeeds', async () => {
    const work = countCalls(0);
    assert.equal(await retry(work.run, POLICY, signal), 'done');
    assert.equal(work.calls(), 1);
  });

  it('is done again until it succeeds', async () => {
    const work = countCalls(2);
    assert.equal(await retry(work.run, POLICY, signal), 'done');
    assert.equal(work.calls(), 3);
  });

  it('gives up after its attempts, the first one included, with the last failure', async () => {
    const work = countCalls(Infinity);
    await assert.rejects(retry(work.run, POLICY, signal), /failure 3/);
    assert.equal(work.calls(), 3);
  });

  it('is not done again after a failure that is not retryable', async () => {
    const work = countCalls(Infinity);
    await assert.rejects(retry(work.run, { ...POLICY, isRetryable: () => false }, signal), /failure 1/);
    assert.equal(work.calls(), 1);
  });

  it('ends at the first failure that is not retryable', async () => {
    const work = countCalls(Infinity);
    const isRetryable = (error: unknown) => error instanceof Error && error.message === 'failure 1';
    await assert.rejects(retry(work.run, { ...POLICY, attempts: 9, isRetryable }, signal), /failure 2/);
  });

  it('has all its attempts each time', async () => {
    for (let call = 0; call < 3; call++) {
      const work = countCalls(2);
      assert.equal(await retry(work.run, POLICY, signal), 'done');
    }
  });

  it('is not done again once the signal has aborted, whose reason is thrown', async () => {
    const abort = new AbortController();
    let calls = 0;
    const work = () => {
      calls++;
      abort.abort(new Error('the client has left'));
      return Promise.reject(new Error('an echo'));
    };
    await assert.rejects(retry(work, POLICY, abort.signal), /the client has left/);
    assert.equal(calls, 1);
  });

  it('is not done again when the signal aborts within the pause', async (t) => {
    t.mock.method(Math, 'random', () => 0.9);
    const abort = new AbortController();
    const work = countCalls(Infinity);
    const policy = { ...POLICY, baseDelayMs: 10_000 };
    const begin = performance.now();
    setTimeout(() => abort.abort(new Error('the client has left')), 20);
    await assert.rejects(retry(work.run, policy, abort.signal), (error) => {
      // The abort, whether as its reason or as an error that carries it; not the failure before the pause.
      return error instanceof Error && !error.message.startsWith('failure');
    });
    assert.ok(performance.now() - begin < 2000);
    assert.equal(work.calls(), 1);
  });
});

describe('the pause between two attempts', () => {
  it('is random below a bound that doubles', async (t) => {
    const random = t.mock.method(Math, 'random', () => 0.5);
    assert.deepEqual(await pausesOf(t, { ...POLICY, attempts: 5, baseDelayMs: 100 }), [50, 100, 200, 400]);
    assert.equal(random.mock.callCount(), 4);
  });

  it('is never longer than 10 s', async (t) => {
    t.mock.method(Math, 'random', () => 0.999);
    assert.deepEqual(await pausesOf(t, { ...POLICY, attempts: 2, baseDelayMs: 1e9 }), [10_000]);
  });
});

describe('RetryCounter', () => {
  it('throws the failure that was one too many, unchanged', async () => {
    const counter = new RetryCounter({ ...POLICY, attempts: 2 });
    await counter.pauseOrThrow(new Error('first'), signal);
    const second = new Error('second');
    await assert.rejects(counter.pauseOrThrow(second, signal), (error) => error === second);
  });
});

/** The loop in which the counter is used. */
async function retry<T>(work: () => Promise<T>, policy: RetryPolicy, abortSignal: AbortSignal): Promise<T> {
  const attempts = new RetryCounter(policy);
  for (;;) {
    try {
      return await work();
    } catch (error) {
      await attempts.pauseOrThrow(error, abortSignal);
    }
  }
}

/** Work that fails so many times, and then succeeds. */
function countCalls(failures: number) {
  let calls = 0;
  return {
    calls: () => calls,
    run: () => {
      calls++;
      return calls <= failures ? Promise.reject(new Error(`failure ${calls}`)) : Promise.resolve('done');
    },
  };
}

/** The length of each pause of work that always fails, in ms of a clock that stands still but for us. */
async function pausesOf(t: TestContext, policy: RetryPolicy): Promise<number[]> {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  syncBuiltinESMExports(); // Or modules that were loaded before keep the real timers.
  const work = countCalls(Infinity);
  const result = retry(work.run, policy, signal).catch(() => 'failed');
  const pauses: number[] = [];
  for (let attempt = 1; attempt < policy.attempts; attempt++) {
    await settle();
    assert.equal(work.calls(), attempt);
    let ms = 0;
    for (; work.calls() === attempt && ms < 12_000; ms += 10) {
      t.mock.timers.tick(10);
      await settle();
    }
    pauses.push(ms);
  }
  assert.equal(await result, 'failed');
  t.mock.timers.reset();
  syncBuiltinESMExports();
  return pauses;
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await Promise.resolve();
}

it('an abort within a pause is told by its reason', async (t) => {
  const abort = new AbortController();
  const reason = new Error('the client left');
  setTimeout(() => abort.abort(reason), 10);
  t.mock.method(Math, 'random', () => 0.9);
  const policy = { attempts: 3, baseDelayMs: 10_000, isRetryable: () => true };
  await assert.rejects(
    retry(() => Promise.reject(new Error('failed')), policy, abort.signal),
    (error) => error === reason,
  );
});
