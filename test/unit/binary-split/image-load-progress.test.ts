import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ArchiveLayer } from '../../../src/archive/archive-index.ts';
import type { ImageLoad } from '../../../src/binary-split/image-load-plan.ts';
import { ImageLoadProgress } from '../../../src/binary-split/image-load-progress.ts';

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

const api = load('api', [100, 200]);
const db = load('db', [700]);
const shared = load('shared', [1000], { isShared: true, tags: [] });
const untagged = load('untagged', [], { tags: [] });

describe('the progress of loads', () => {
  it('begins with nothing of the bytes of all, and the images that are there', () => {
    assert.deepEqual(new ImageLoadProgress([api, db, shared], 5, 3).snapshot(), {
      bytesDone: 0,
      bytesTotal: 2000,
      imagesDone: 3,
      imagesTotal: 5,
      currentImages: [],
      fraction: 0,
    });
  });

  it('counts what is taken for one half and what is registered for the other', () => {
    const progress = new ImageLoadProgress([api, db], 2, 0);
    progress.sent(api, 300);
    progress.sent(db, 200);
    assert.deepEqual([progress.snapshot().bytesDone, progress.snapshot().fraction], [500, 0.25]);
    progress.registered(api, 'layer-1', 50);
    progress.registered(api, 'layer-2', 150);
    assert.equal(progress.snapshot().fraction, 0.35);
    progress.registered(api, 'layer-1', 100);
    assert.equal(progress.snapshot().fraction, 0.375);
    assert.equal(progress.snapshot().bytesDone, 500);
  });

  it('counts no more as registered than was to be sent, whatever the engine says', () => {
    const progress = new ImageLoadProgress([api, db], 2, 0);
    progress.sent(api, 300);
    progress.registered(api, 'layer-1', 1e12);
    assert.equal(progress.snapshot().fraction, 0.3);
  });

  it('takes what has ended for registered, even where the engine said nothing', () => {
    const progress = new ImageLoadProgress([api, db], 2, 0);
    progress.begin(api);
    progress.sent(api, 300);
    progress.end(api);
    assert.equal(progress.snapshot().fraction, 0.3);
    progress.sent(db, 700);
    progress.end(db);
    assert.equal(progress.snapshot().fraction, 1);
  });

  it('has all done where nothing is to be sent', () => {
    assert.equal(new ImageLoadProgress([untagged], 1, 0).snapshot().fraction, 1);
    assert.equal(new ImageLoadProgress([], 3, 3).snapshot().fraction, 1);
  });

  it('names what is under way by its tag or ID, and shared layers by a word', () => {
    const progress = new ImageLoadProgress([api, db, shared, untagged], 3, 0);
    for (const each of [shared, api, untagged]) progress.begin(each);
    assert.deepEqual(progress.snapshot().currentImages, ['shared layers', 'api', 'sha256:untagged']);
    progress.end(shared);
    progress.end(api);
    progress.begin(db);
    assert.deepEqual(progress.snapshot().currentImages, ['sha256:untagged', 'db']);
  });

  it('counts images that have ended, and not shared layers', () => {
    const progress = new ImageLoadProgress([shared, api, db], 3, 1);
    progress.end(shared);
    assert.equal(progress.snapshot().imagesDone, 1);
    progress.end(api);
    progress.end(db);
    assert.equal(progress.snapshot().imagesDone, 3);
  });

  it('adds what is sent once more, so that never more is done than there is', () => {
    const progress = new ImageLoadProgress([api, db], 2, 0);
    progress.sent(api, 250);
    progress.repeat(api, 400);
    const { bytesDone, bytesTotal } = progress.snapshot();
    assert.deepEqual([bytesDone, bytesTotal], [250, 250 + 400 + 700]);
    progress.sent(api, 400);
    progress.end(api);
    progress.sent(db, 700);
    progress.end(db);
    assert.deepEqual([progress.snapshot().bytesDone, progress.snapshot().fraction], [1350, 1]);
  });

  it('ignores what is said of a load that is none of its own', () => {
    const progress = new ImageLoadProgress([api], 1, 0);
    progress.sent(db, 5);
    progress.registered(db, 'layer', 5);
    progress.repeat(db, 5);
    assert.deepEqual([progress.snapshot().bytesDone, progress.snapshot().bytesTotal], [0, 300]);
  });
});
