import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { WantedImage } from '../../../src/archive/archive-images.ts';
import type { ArchiveLayer } from '../../../src/archive/archive-index.ts';
import type { ImageLoad } from '../../../src/binary-split/image-load-plan.ts';
import {
  completeProgress,
  haltProgress,
  ImageLoadProgress,
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

function load(name: string, lengths: readonly number[], options: Partial<ImageLoad> = {}): ImageLoad {
  const layers = lengths.map((length, at): ArchiveLayer => ({
    diffId: `sha256:${name}${at}`,
    chainId: `sha256:${name}${at}`,
    file: { start: 0, length },
    compression: 'none',
    sha256: undefined,
  }));
  const id = `sha256:${name}`;
  const configJson = Buffer.from(name);
  return { configJson, id, tags: [name], layers, sentLayers: layers, after: undefined, isShared: false, ...options };
}

class FractionMeter extends ProgressMeter {
  fraction = 0;

  override measure(counts: LoadCounts, fraction: number): UnlockProgress {
    this.fraction = fraction;
    return super.measure(counts, fraction);
  }
}
const meters = new WeakMap<ImageLoadProgress, FractionMeter>();

const api = load('api', [100, 200]);
const db = load('db', [700]);
const shared = load('shared', [1000], { isShared: true, tags: [] });
const untagged = load('untagged', [], { tags: [] });

function progressOf(loads: readonly ImageLoad[], total: number, present: number): ImageLoadProgress {
  const meter = new FractionMeter(() => 0);
  const progress = new ImageLoadProgress(meter);
  meters.set(progress, meter);
  progress.plan(loads, { total, present });
  return progress;
}

/** Its fraction is what the meter got: the percentage of a meter never goes back. */
function read(progress: ImageLoadProgress): UnlockProgress & { readonly fraction: number } {
  const told = progress.read();
  assert.ok(told !== undefined);
  return { ...told, fraction: meters.get(progress)?.fraction ?? NaN };
}

describe('the progress of loads', () => {
  it('begins with nothing of the bytes of all, and the images that are there', () => {
    assert.deepEqual(read(progressOf([api, db, shared], 5, 3)), {
      bytesDone: 0,
      bytesTotal: 2000,
      imagesDone: 3,
      imagesTotal: 5,
      currentImages: [],
      percent: 0,
      bytesPerSecond: 0,
      secondsLeft: null,
      fraction: 0,
    });
  });

  it('counts what is taken for one half and what is registered for the other', () => {
    const progress = progressOf([api, db], 2, 0);
    progress.sent(api, 300);
    progress.sent(db, 200);
    assert.deepEqual([read(progress).bytesDone, read(progress).fraction], [500, 0.25]);
    progress.registered(api, { layerId: 'layer-1', current: 50 });
    progress.registered(api, { layerId: 'layer-2', current: 150 });
    assert.equal(read(progress).fraction, 0.35);
    progress.registered(api, { layerId: 'layer-1', current: 100 });
    assert.equal(read(progress).fraction, 0.375);
    assert.equal(read(progress).bytesDone, 500);
  });

  it('counts no more as registered than was to be sent, whatever the engine says', () => {
    const progress = progressOf([api, db], 2, 0);
    progress.sent(api, 300);
    progress.registered(api, { layerId: 'layer-1', current: 1e12 });
    assert.equal(read(progress).fraction, 0.3);
  });

  it('counts what an engine reports of at most 512 layers of an image', () => {
    const large = load('large', [10_000]);
    const progress = progressOf([large], 1, 0);
    progress.begin(large);
    for (let layer = 0; layer < 1000; layer++) progress.registered(large, { layerId: `layer-${layer}`, current: 1 });
    assert.equal(read(progress).fraction, 512 / 20_000);
  });

  it('takes what has ended for registered, even where the engine said nothing', () => {
    const progress = progressOf([api, db], 2, 0);
    progress.begin(api);
    progress.sent(api, 300);
    progress.end(api);
    assert.equal(read(progress).fraction, 0.3);
    progress.sent(db, 700);
    progress.end(db);
    assert.equal(read(progress).fraction, 1);
  });

  it('has all done where nothing is to be sent', () => {
    assert.equal(read(progressOf([untagged], 1, 0)).fraction, 1);
    assert.equal(read(progressOf([], 3, 3)).fraction, 1);
  });

  it('names what is under way by its tag or ID, and shared layers by a word', () => {
    const progress = progressOf([api, db, shared, untagged], 3, 0);
    for (const each of [shared, api, untagged]) progress.begin(each);
    assert.deepEqual(read(progress).currentImages, ['shared layers', 'api', 'sha256:untagged']);
    progress.end(shared);
    progress.end(api);
    progress.begin(db);
    assert.deepEqual(read(progress).currentImages, ['sha256:untagged', 'db']);
  });

  it('counts images that have ended, and not shared layers', () => {
    const progress = progressOf([shared, api, db], 3, 1);
    progress.end(shared);
    assert.equal(read(progress).imagesDone, 1);
    progress.end(api);
    progress.end(db);
    assert.equal(read(progress).imagesDone, 3);
  });

  it('adds what is sent once more, so that never more is done than there is', () => {
    const progress = progressOf([api, db], 2, 0);
    progress.sent(api, 250);
    progress.repeat(api, 400);
    const { bytesDone, bytesTotal } = read(progress);
    assert.deepEqual([bytesDone, bytesTotal], [250, 250 + 400 + 700]);
    progress.sent(api, 400);
    progress.end(api);
    progress.sent(db, 700);
    progress.end(db);
    assert.deepEqual([read(progress).bytesDone, read(progress).fraction], [1350, 1]);
  });

  it('ignores what is said of a load that is none of its own', () => {
    const progress = progressOf([api], 1, 0);
    progress.sent(db, 5);
    progress.registered(db, { layerId: 'layer', current: 5 });
    progress.repeat(db, 5);
    assert.deepEqual([read(progress).bytesDone, read(progress).bytesTotal], [0, 300]);
  });

  it('is none before the plan, which those who wait for it hear of', async () => {
    const progress = new ImageLoadProgress();
    assert.equal(progress.read(), undefined);
    progress.plan([api], { total: 1, present: 0 });
    await progress.planned;
    assert.equal(progress.read()?.bytesTotal, 300);
  });
});

describe('the progress of a compressed archive', () => {
  it('is that of its bytes, which are half of the work, and of images when these are known', async () => {
    const meter = new FractionMeter(() => 0);
    const progress = new ImageLoadProgress(meter);
    const stream = { bytesRead: 0, images: [] as WantedImage[] };
    progress.planStream(stream, 1000);
    await progress.planned;
    stream.bytesRead = 500;
    assert.partialDeepStrictEqual(progress.read(), {
      bytesDone: 500,
      bytesTotal: 1000,
      imagesDone: 0,
      imagesTotal: 0,
      currentImages: ['all images of the compressed archive'],
      percent: 25,
    });
    stream.bytesRead = 1000;
    stream.images = [{ id: 'sha256:a', tags: [], diffIds: [] }];
    assert.partialDeepStrictEqual(progress.read(), { bytesDone: 1000, imagesTotal: 1, percent: 50 });
  });
});
