import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FAR_LINK, SLOW_LINK, type LinkShape } from '../../../lab/links/link-shape.ts';
import { MAX_PARALLEL, MIN_PARALLEL, Parallelism } from '../../../src/net/parallelism.ts';
import { simulateTransfer } from '../../support/simulated-transfer.ts';

const REQUEST_LENGTH = 8 * 1024 * 1024;
/** 200 ms, 1 Gbit/s: four windows of Linux fill less than a half of it. */
const LONG_FAT_LINK: LinkShape = { delayMs: 100, bytesPerSecond: 125_000_000 };

/** Moves so many bytes. Returns the fraction of the link's rate, and the requests that were under way at the end. */
function move(shape: LinkShape, direction: 'down' | 'up', length: number) {
  const parallelism = new Parallelism();
  const ms = simulateTransfer({
    shape,
    direction,
    length,
    requestLength: REQUEST_LENGTH,
    parallel: () => parallelism.count,
    onFinish: (bytes, ms) => parallelism.finish(bytes, ms),
  });
  const fourMs = simulateTransfer({
    shape,
    direction,
    length,
    requestLength: REQUEST_LENGTH,
    parallel: () => MIN_PARALLEL,
    onFinish: () => undefined,
  });
  return { fraction: length / shape.bytesPerSecond / (ms / 1000), gain: fourMs / ms, count: parallelism.count };
}

describe('the requests of a transfer', () => {
  for (const direction of ['down', 'up'] as const) {
    it(`stay few on links that few connections fill, and move at nine tenths of their rate (${direction})`, () => {
      for (const [shape, length] of [
        [FAR_LINK, 300_000_000],
        [SLOW_LINK, 30_000_000],
      ] as const) {
        const { fraction, count } = move(shape, direction, length);
        assert.ok(count <= MIN_PARALLEL + 1, `${count} at once`);
        assert.ok(fraction > 0.9, `${fraction} of the rate`);
      }
    });

    it(`become more on a fast link far away, which is faster for it (${direction})`, () => {
      const { gain, count } = move(LONG_FAT_LINK, direction, 1_000_000_000);
      assert.ok(count >= MIN_PARALLEL + 2, `${count} at once`);
      assert.ok(gain > 1.25, `${gain} times as fast as with ${MIN_PARALLEL}`);
    });
  }

  it('become one more to try it, and no more when each takes longer then, however long', () => {
    const parallelism = new Parallelism();
    for (let finished = 0; finished < 1000; finished++) parallelism.finish(REQUEST_LENGTH, 100 * parallelism.count);
    assert.equal(parallelism.count, MIN_PARALLEL + 1);
  });

  it('become one more after two rounds each, up to the most', () => {
    const parallelism = new Parallelism();
    const counts = Array.from({ length: 50 }, () => {
      parallelism.finish(REQUEST_LENGTH, 100);
      return parallelism.count;
    });
    assert.deepEqual(
      [4, 5, 6, 7].map((count) => counts.indexOf(count) + 1),
      [1, 8, 18, 30],
    );
    assert.equal(counts.at(-1), MAX_PARALLEL);
  });

  it('are not counted while the windows of new connections grow', () => {
    const parallelism = new Parallelism();
    for (let finished = 0; finished < 18; finished++)
      parallelism.finish(REQUEST_LENGTH, finished < 8 || finished > 12 ? 100 : 1000);
    assert.equal(parallelism.count, MIN_PARALLEL + 2);
  });

  it('stay as many in the next transfer, as long as the connections of the last one are kept', (t) => {
    const parallelism = new Parallelism();
    parallelism.begin();
    const finishTwoRounds = (ms: number) => {
      for (let left = 2 * parallelism.count; left > 0; left--) parallelism.finish(REQUEST_LENGTH, ms);
    };
    finishTwoRounds(100);
    finishTwoRounds(200);
    parallelism.begin();
    finishTwoRounds(10);
    assert.equal(parallelism.count, MIN_PARALLEL + 1, 'none is tried again');
    const now = performance.now.bind(performance);
    t.mock.method(performance, 'now', () => now() + 61_000);
    parallelism.begin();
    assert.equal(parallelism.count, MIN_PARALLEL);
    finishTwoRounds(100);
    assert.equal(parallelism.count, MIN_PARALLEL + 1);
  });
});
