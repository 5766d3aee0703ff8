import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { PassingError } from '../../../src/errors.ts';
import { WrittenRanges } from '../../../src/resources/written-ranges.ts';

/** Three ranges: of 10, 10 and 5 bytes. */
const LIMITS = { signal: NEVER, patienceMs: 1000 };
let written: WrittenRanges;

beforeEach(() => {
  written = new WrittenRanges(25, 10);
});

/** Whether a promise has been fulfilled or rejected by the time that what was announced before has been dealt with. */
async function isPending(promise: Promise<unknown>): Promise<boolean> {
  const later = Symbol('later');
  const settled = promise.catch(() => undefined);
  return (await Promise.race([settled, new Promise((resolve) => setImmediate(resolve, later))])) === later;
}

describe('the bytes that are available', () => {
  it('are those before the first byte that is missing, whatever is written behind it', () => {
    written.advance(1, 10);
    written.advance(2, 3);
    assert.deepEqual([written.available, written.bytes], [0, 13]);
    written.advance(0, 4);
    assert.deepEqual([written.available, written.bytes], [4, 17]);
    written.advance(0, 10);
    assert.deepEqual([written.available, written.bytes], [23, 23]);
    assert.ok(!written.isComplete);
    written.advance(2, 5);
    assert.deepEqual([written.available, written.bytes], [25, 25]);
    assert.ok(written.isComplete);
  });

  for (const length of [1, 9, 10, 11, 20, 30]) {
    it(`are all ${length} once every range is complete`, () => {
      const ranges = new WrittenRanges(length, 10);
      for (let index = 0; index * 10 < length; index++) {
        assert.ok(!ranges.isComplete);
        ranges.advance(index, Math.min(10, length - index * 10));
      }
      assert.ok(ranges.isComplete);
      assert.equal(ranges.available, length);
    });
  }
});

describe('reach', () => {
  it('returns when all bytes before the position are there, and not before', async () => {
    const reached = written.reach(12, LIMITS);
    written.advance(1, 10);
    written.advance(0, 9);
    assert.ok(await isPending(reached));
    written.advance(0, 10);
    await reached;
  });

  it('returns at once for what is there, even after a failure', async () => {
    written.advance(0, 10);
    written.fail(new Error('the CDN failed'));
    await written.reach(10, LIMITS);
    await assert.rejects(written.reach(11, LIMITS), /the CDN failed/);
  });

  it('throws the first failure to all who wait', async () => {
    const waits = [written.reach(1, LIMITS), written.reach(25, LIMITS)];
    written.fail(new Error('the first failure'));
    written.fail(new Error('its echo'));
    for (const wait of waits) await assert.rejects(wait, /the first failure/);
    assert.match(String(written.failure), /the first failure/);
  });

  it('throws the reason of the signal, and disturbs no other wait', async () => {
    const abort = new AbortController();
    const left = written.reach(5, { ...LIMITS, signal: abort.signal });
    const stayed = written.reach(5, LIMITS);
    abort.abort(new Error('the client has left'));
    await assert.rejects(left, /the client has left/);
    written.advance(0, 5);
    await stayed;
  });
});

describe('the progress', () => {
  it('is told at once and after each change, until all is written', async () => {
    const progress = written.progress(LIMITS);
    assert.deepEqual(await progress.next(), { done: false, value: { bytes: 0, waitsFor: undefined } });
    written.advance(2, 5);
    assert.deepEqual(await progress.next(), { done: false, value: { bytes: 5, waitsFor: undefined } });
    written.advance(0, 10);
    assert.deepEqual(await progress.next(), { done: false, value: { bytes: 15, waitsFor: undefined } });
    written.advance(1, 10);
    assert.deepEqual(await Array.fromAsync(progress, ({ bytes }) => bytes), [25]);
  });

  it('misses no last number when the consumer is slow', async () => {
    const progress = written.progress(LIMITS);
    await progress.next();
    for (const range of [0, 1]) written.advance(range, 10);
    assert.deepEqual(await progress.next(), { done: false, value: { bytes: 20, waitsFor: undefined } });
    written.advance(2, 5);
    assert.deepEqual(await Array.fromAsync(progress, ({ bytes }) => bytes), [25]);
  });

  it('waits between two changes', async () => {
    const progress = written.progress(LIMITS);
    await progress.next();
    const next = progress.next();
    assert.ok(await isPending(next));
    written.advance(0, 1);
    assert.deepEqual(await next, { done: false, value: { bytes: 1, waitsFor: undefined } });
  });

  it('throws the failure, and the reason of the signal', async () => {
    const abort = new AbortController();
    const [failing, leaving] = [written.progress(LIMITS), written.progress({ ...LIMITS, signal: abort.signal })];
    await Promise.all([failing.next(), leaving.next()]);
    const left = leaving.next();
    abort.abort(new Error('no longer wanted'));
    await assert.rejects(left, /no longer wanted/);
    written.fail(new Error('the CDN failed'));
    await assert.rejects(failing.next(), /the CDN failed/);
  });
});

describe('an outage', () => {
  const failure = new PassingError('cdn_unreachable', 'The connection failed.');

  it('is waited out by who has the patience, and by no other', async () => {
    const impatient = written.reach(1, { ...LIMITS, patienceMs: 100 });
    const patient = written.reach(1, LIMITS);
    written.wait(failure, 100);
    assert.ok(await isPending(impatient));
    written.wait(failure, 101);
    await assert.rejects(impatient, (error) => error === failure);
    assert.ok(await isPending(patient));
    written.advance(0, 1);
    await patient;
  });

  it('is part of the progress until bytes come', async () => {
    const progress = written.progress(LIMITS);
    await progress.next();
    written.wait(failure, 1);
    assert.deepEqual(await progress.next(), { done: false, value: { bytes: 0, waitsFor: failure } });
    written.advance(0, 1);
    assert.deepEqual(await progress.next(), { done: false, value: { bytes: 1, waitsFor: undefined } });
  });

  it('takes nothing from who finds its bytes there', async () => {
    written.advance(0, 10);
    written.wait(failure, 1e9);
    await written.reach(10, LIMITS);
    await assert.rejects(written.reach(11, LIMITS), (error) => error === failure);
  });
});
