import assert from 'node:assert/strict';
import { syncBuiltinESMExports } from 'node:module';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { Outage, type Patience } from '../../../src/async/outage.ts';
import { LoaderError, PassingError, type PassingErrorOptions } from '../../../src/errors.ts';

const { signal } = new AbortController();
const PATIENCE: Patience = { limitMs: 30_000, setting: 'STALL_TIMEOUT_MS' };
let nowMs = 0;

beforeEach(() => {
  nowMs = 1_000_000;
  mock.method(performance, 'now', () => nowMs);
  mock.method(Math, 'random', () => 1);
  mock.timers.enable({ apis: ['setTimeout'] });
  syncBuiltinESMExports(); // Or modules that were loaded before keep the real timers.
});

afterEach(() => {
  mock.timers.reset();
  mock.restoreAll();
  syncBuiltinESMExports();
});

function failure(options?: PassingErrorOptions): PassingError {
  return new PassingError('cdn_unreachable', 'The connection failed.', options);
}

/** Lets the pause end, in steps of 10 ms of a clock that stands still but for us. Returns its length in ms. */
async function pauseOf(waiting: Promise<void>): Promise<number> {
  const pause = { isOver: false };
  const over = waiting.finally(() => (pause.isOver = true));
  over.catch(() => undefined);
  const startMs = nowMs;
  for (let turn = 0; turn < 5; turn++) await Promise.resolve();
  while (!pause.isOver && nowMs - startMs < 4_000_000) {
    nowMs += 10;
    mock.timers.tick(10);
    for (let turn = 0; turn < 5; turn++) await Promise.resolve();
  }
  await over;
  return nowMs - startMs;
}

/** The pauses of a source that fails at once until the outage gives up, and what is thrown then. */
async function pausesOf(outage: Outage, error = failure()): Promise<{ pauses: number[]; thrown: unknown }> {
  const pauses: number[] = [];
  for (;;) {
    try {
      pauses.push(await pauseOf(outage.waitOrThrow(error, signal)));
    } catch (thrown) {
      return { pauses, thrown };
    }
  }
}

describe('an outage', () => {
  it('is waited out for as long as the patience lasts, with pauses that grow up to five seconds', async () => {
    const { pauses, thrown } = await pausesOf(new Outage(PATIENCE));
    assert.deepEqual(pauses, [100, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000, 5000, 3600]);
    assert.ok(thrown instanceof PassingError);
    assert.equal(thrown.message, 'The connection failed. It was tried 13 times within 30 s.');
  });

  it('has jitter in its pauses', async () => {
    mock.method(Math, 'random', () => 0);
    const { pauses } = await pausesOf(new Outage({ ...PATIENCE, limitMs: 1000 }));
    assert.deepEqual(pauses.slice(0, 4), [50, 50, 50, 80]);
  });

  it('is counted from the last progress, after which the pauses are short again', async () => {
    const outage = new Outage(PATIENCE);
    for (let failures = 0; failures < 8; failures++) await pauseOf(outage.waitOrThrow(failure(), signal));
    assert.ok(outage.ageMs > 10_000);
    outage.progress();
    assert.equal(outage.ageMs, 0);
    assert.equal(await pauseOf(outage.waitOrThrow(failure(), signal)), 100);
    nowMs += 29_000;
    assert.ok((await pauseOf(outage.waitOrThrow(failure(), signal))) <= 900);
    await assert.rejects(outage.waitOrThrow(failure(), signal), /It was tried 3 times within 30 s/);
  });

  it('is not waited out when a single try took as long as the patience', async () => {
    const outage = new Outage(PATIENCE);
    nowMs += 30_000;
    const error = failure();
    await assert.rejects(outage.waitOrThrow(error, signal), (thrown) => thrown === error);
  });

  it('ends at once at a failure that does not pass', async () => {
    const error = new LoaderError('cdn_access_denied', 'x');
    await assert.rejects(new Outage(PATIENCE).waitOrThrow(error, signal), (thrown) => thrown === error);
    await assert.rejects(new Outage(PATIENCE).waitOrThrow('text', signal), (thrown) => thrown === 'text');
  });

  it('is waited out for three seconds only where it rarely passes', async () => {
    const { pauses, thrown } = await pausesOf(new Outage(PATIENCE), failure({ isDoubtful: true }));
    assert.equal(
      pauses.reduce((sum, pause) => sum + pause, 0),
      3000,
    );
    assert.match(String(thrown), /It was tried \d times within 3 s/);
  });

  it('asks for the patience each time, since it may change', async () => {
    let limitMs = 1000;
    const outage = new Outage(() => ({ ...PATIENCE, limitMs }));
    await pauseOf(outage.waitOrThrow(failure(), signal));
    limitMs = 50;
    await assert.rejects(outage.waitOrThrow(failure(), signal), /It was tried 2 times/);
  });

  it('tells who waits what is waited for, and when it goes on', async () => {
    const told: (string | undefined)[] = [];
    const outage = new Outage({ ...PATIENCE, onWait: (error) => told.push(error?.code) });
    outage.progress();
    await pauseOf(outage.waitOrThrow(failure(), signal));
    await pauseOf(outage.waitOrThrow(failure(), signal));
    outage.progress();
    outage.progress();
    assert.deepEqual(told, ['cdn_unreachable', 'cdn_unreachable', undefined]);
  });

  it('ends with the reason of the signal, also within a pause', async () => {
    const abort = new AbortController();
    const reason = new Error('the client left');
    const waiting = new Outage(PATIENCE).waitOrThrow(failure(), abort.signal);
    abort.abort(reason);
    await assert.rejects(waiting, (thrown) => thrown === reason);
    await assert.rejects(new Outage(PATIENCE).waitOrThrow(failure(), abort.signal), (thrown) => thrown === reason);
    const other = new LoaderError('cdn_error', 'The CDN answered with an error.');
    await assert.rejects(new Outage(PATIENCE).waitOrThrow(other, abort.signal), (thrown) => thrown === reason);
  });
});

describe('a pause that the server asks for', () => {
  it('is honoured, with a tenth of our own on top', async () => {
    const outage = new Outage(PATIENCE);
    assert.equal(await pauseOf(outage.waitOrThrow(failure({ retryAfterMs: 2000 }), signal)), 2010);
  });

  it('ends the tries at once where it is longer than what is left, and says so', async () => {
    const error = failure({ retryAfterMs: 3_600_000 });
    await assert.rejects(new Outage(PATIENCE).waitOrThrow(error, signal), {
      message:
        'The connection failed. It asks for a pause of 3600 s, but the Loader waits for 30 s at most (STALL_TIMEOUT_MS).',
    });
  });

  it('is waited by who has more patience, with one note on what was tried', async () => {
    const error = failure({ retryAfterMs: 60_000 });
    const told = await new Outage(PATIENCE).waitOrThrow(error, signal).catch((thrown: unknown) => thrown);
    const outage = new Outage({ limitMs: 61_000, setting: 'PREFETCH_OUTAGE_MS' });
    assert.equal(await pauseOf(outage.waitOrThrow(told, signal)), 60_010);
    await assert.rejects(
      outage.waitOrThrow(told, signal),
      /^LoaderError: The connection failed\. It asks for .*61 s at most/,
    );
  });
});
