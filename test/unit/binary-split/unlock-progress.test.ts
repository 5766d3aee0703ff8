import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  completeProgress,
  haltProgress,
  ProgressMeter,
  type LoadCounts,
  type UnlockProgress,
} from '../../../src/binary-split/unlock-progress.ts';

const TOTAL = 1000;

class Clock {
  ms = 5_000_000;
  readonly meter = new ProgressMeter(() => this.ms);

  #counts: LoadCounts = {
    bytesDone: 0,
    bytesTotal: TOTAL,
    imagesDone: 0,
    imagesTotal: 3,
    currentImages: ['azaion/api:1'],
  };
  #fraction = 0;

  /** Some ms later, so much is done. */
  take(laterMs: number, { fraction, ...counts }: Partial<LoadCounts> & { fraction?: number }): UnlockProgress {
    this.ms += laterMs;
    this.#counts = { ...this.#counts, bytesDone: 0, ...counts };
    this.#fraction = fraction ?? this.#counts.bytesDone / TOTAL;
    return this.read();
  }

  /** Measures the same once more. */
  read(): UnlockProgress {
    return this.meter.measure(this.#counts, this.#fraction);
  }
}

describe('the progress', () => {
  it('is what was told last', () => {
    const clock = new Clock();
    clock.take(0, { bytesDone: 100, imagesDone: 1 });
    const { bytesDone, bytesTotal, imagesDone, imagesTotal, currentImages } = clock.take(100, {
      bytesDone: 250,
      bytesTotal: 2000,
      imagesDone: 2,
      currentImages: ['a', 'b'],
    });
    assert.deepEqual([bytesDone, bytesTotal, imagesDone, imagesTotal, currentImages], [250, 2000, 2, 3, ['a', 'b']]);
  });

  it('has no rate and no estimate after one word, which is not divided by no time', () => {
    const clock = new Clock();
    const { bytesPerSecond, secondsLeft, percent } = clock.take(0, { bytesDone: 500 });
    assert.deepEqual([bytesPerSecond, secondsLeft, percent], [0, null, 50]);
    const again = clock.take(0, { bytesDone: 600 });
    assert.deepEqual([again.bytesPerSecond, again.secondsLeft], [0, null]);
  });

  it('takes a real clock by itself', () => {
    const counts = { bytesDone: 1, bytesTotal: 2, imagesDone: 0, imagesTotal: 1, currentImages: [] };
    assert.equal(new ProgressMeter().measure(counts, 0.5).percent, 50);
  });
});

describe('the percentage', () => {
  it('is rounded down', () => {
    const clock = new Clock();
    for (const [fraction, percent] of [
      [0, 0],
      [0.0099, 0],
      [0.01, 1],
      [0.499, 49],
      [0.5, 50],
      [0.9899, 98],
      [0.99, 99],
    ] as const) {
      assert.equal(clock.take(10, { fraction }).percent, percent, `${fraction}`);
    }
  });

  it('never goes back, even when more is to be done than was thought', () => {
    const clock = new Clock();
    let highest = 0;
    for (const fraction of [0.1, 0.4, 0.3, 0, 0.41, 0.2, 0.9, 1, 0.5]) {
      const { percent } = clock.take(100, { fraction });
      assert.ok(percent >= highest, `${percent} after ${highest}`);
      highest = percent;
    }
    assert.equal(highest, 99);
  });

  it('is 99 until every image was found in the engine, and then 100', () => {
    const clock = new Clock();
    assert.equal(clock.take(10, { fraction: 1, bytesDone: TOTAL, imagesDone: 3 }).percent, 99);
    clock.ms += 60_000;
    assert.equal(clock.read().percent, 99);
    assert.equal(completeProgress(clock.read()).percent, 100);
  });
});

describe('the rate', () => {
  it('is that of the time since the first word', () => {
    const clock = new Clock();
    clock.take(0, { bytesDone: 0 });
    assert.equal(clock.take(500, { bytesDone: 100 }).bytesPerSecond, 200);
    assert.equal(clock.take(500, { bytesDone: 100 }).bytesPerSecond, 100);
    assert.equal(clock.take(2000, { bytesDone: 400 }).bytesPerSecond, 133);
  });

  it('leaves out what was there at the first word', () => {
    const clock = new Clock();
    clock.take(0, { bytesDone: 600 });
    assert.equal(clock.take(1000, { bytesDone: 610 }).bytesPerSecond, 10);
  });

  it('is that of the last five seconds', () => {
    const clock = new Clock();
    for (let second = 0; second <= 10; second++) clock.take(second === 0 ? 0 : 1000, { bytesDone: 50 * second });
    assert.equal(clock.read().bytesPerSecond, 50);
    // Ten times slower from here on: after five seconds the fast ones are forgotten.
    const rates: number[] = [];
    for (let second = 1; second <= 6; second++)
      rates.push(clock.take(1000, { bytesDone: 500 + 5 * second }).bytesPerSecond);
    assert.deepEqual(rates, [41, 32, 23, 14, 5, 5]);
  });

  it('is 0 while the engine registers what it has taken', () => {
    const clock = new Clock();
    clock.take(0, { bytesDone: 0 });
    clock.take(1000, { bytesDone: 1000, fraction: 0.5 });
    for (let tenth = 0; tenth < 70; tenth++) clock.take(100, { bytesDone: 1000, fraction: 0.5 + tenth / 1000 });
    assert.equal(clock.read().bytesPerSecond, 0);
  });

  it('sinks while nothing is told', () => {
    const clock = new Clock();
    clock.take(0, { bytesDone: 0 });
    clock.take(1000, { bytesDone: 500 });
    clock.ms += 1000;
    assert.equal(clock.read().bytesPerSecond, 250);
    clock.ms += 3000;
    assert.equal(clock.read().bytesPerSecond, 100);
    clock.ms += 2000;
    assert.equal(clock.read().bytesPerSecond, 0);
  });

  it('takes no more memory for a longer run, and no longer for its rate', () => {
    const clock = new Clock();
    for (let at = 0; at < 20_000; at++) clock.take(100, { bytesDone: at, bytesTotal: 20_000 });
    assert.equal(clock.read().bytesPerSecond, 10);
  });

  it('is still there when words come rarely', () => {
    const clock = new Clock();
    clock.take(0, { bytesDone: 0 });
    clock.take(20_000, { bytesDone: 200 });
    assert.equal(clock.read().bytesPerSecond, 10);
    assert.equal(clock.take(20_000, { bytesDone: 600 }).bytesPerSecond, 20);
  });
});

describe('the estimate', () => {
  it('is what is left at the pace of the last seconds, rounded up', () => {
    const clock = new Clock();
    clock.take(0, { fraction: 0 });
    assert.equal(clock.take(1000, { fraction: 0.1 }).secondsLeft, 9);
    assert.equal(clock.take(1000, { fraction: 0.3 }).secondsLeft, 5);
  });

  it('goes by the work, not by the bytes: what was taken is to be registered', () => {
    const clock = new Clock();
    clock.take(0, { bytesDone: 1000, fraction: 0.5 });
    const { secondsLeft, bytesPerSecond } = clock.take(2000, { bytesDone: 1000, fraction: 0.75 });
    assert.deepEqual([secondsLeft, bytesPerSecond], [2, 0]);
  });

  it('is none where nothing moves, or moves back', () => {
    const clock = new Clock();
    clock.take(0, { fraction: 0.5 });
    assert.equal(clock.take(1000, { fraction: 0.5 }).secondsLeft, null);
    assert.equal(clock.take(1000, { fraction: 0.4 }).secondsLeft, null);
  });
});

describe('the last progress of an unlock', () => {
  const counts = { bytesDone: 500, bytesTotal: TOTAL, imagesDone: 1, imagesTotal: 3, currentImages: ['azaion/db:1'] };
  const last = { ...counts, percent: 50, bytesPerSecond: 500, secondsLeft: 1 };

  it('has every image, 100 percent and nothing left when all were found', () => {
    assert.deepEqual(completeProgress(last), {
      ...counts,
      imagesDone: 3,
      currentImages: [],
      percent: 100,
      bytesPerSecond: 0,
      secondsLeft: 0,
    });
  });

  it('stays where it was, without a rate, when the unlock failed', () => {
    assert.deepEqual(haltProgress(last), { ...last, bytesPerSecond: 0, secondsLeft: null });
  });
});
