import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { WantedImage } from '../../../src/archive/archive-images.ts';
import type { ArchiveLayer } from '../../../src/archive/archive-index.ts';
import type { ImageLoad } from '../../../src/binary-split/image-load-plan.ts';
import { ImageLoadProgress } from '../../../src/binary-split/image-load-progress.ts';
import { ProgressMeter, type LoadCounts, type UnlockProgress } from '../../../src/binary-split/unlock-progress.ts';

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
    progress.registered(api, 'layer-1', 50);
    progress.registered(api, 'layer-2', 150);
    assert.equal(read(progress).fraction, 0.35);
    progress.registered(api, 'layer-1', 100);
    assert.equal(read(progress).fraction, 0.375);
    assert.equal(read(progress).bytesDone, 500);
  });

  it('counts no more as registered than was to be sent, whatever the engine says', () => {
    const progress = progressOf([api, db], 2, 0);
    progress.sent(api, 300);
    progress.registered(api, 'layer-1', 1e12);
    assert.equal(read(progress).fraction, 0.3);
  });

  it('counts what an engine tells of at most 512 layers of an image', () => {
    const large = load('large', [10_000]);
    const progress = progressOf([large], 1, 0);
    progress.begin(large);
    for (let layer = 0; layer < 1000; layer++) progress.registered(large, `layer-${layer}`, 1);
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
    progress.registered(db, 'layer', 5);
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
