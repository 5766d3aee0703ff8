import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { LoaderError } from '../../../src/errors.ts';
import { SharedTransfers } from '../../../src/resources/shared-transfers.ts';
import {
  chunksOf,
  PATIENCE,
  CONTENT,
  MIB,
  OBJECT,
  readAll,
  SOURCE_RECORD,
  TransferLab,
  WHOLE,
} from '../../support/transfer-lab.ts';

let lab: TransferLab;
let transfers: SharedTransfers;

beforeEach(async () => {
  lab = await TransferLab.create();
  transfers = new SharedTransfers(lab);
});

afterEach(async () => {
  await lab.cache.remove();
});

describe('the transfers under way', () => {
  it('are shared by callers who want the same version', async () => {
    const open = lab.cdn.holdFrom(2 * MIB);
    const followers = [1, 2, 3].map(() => transfers.join(lab.source(), NEVER, PATIENCE));
    assert.equal(transfers.size, 1);
    open();
    assert.deepEqual(await Promise.all(followers.map(readAll)), [WHOLE, WHOLE, WHOLE]);
    assert.equal(lab.cdn.ranges.length, 3);
    assert.equal(transfers.size, 0);
  });

  it('may be joined while all is there and is being published, even after the others have left', async () => {
    const gate = Promise.withResolvers<undefined>();
    lab.cache.beforePublish = () => gate.promise;
    const first = transfers.join(lab.source(), NEVER, PATIENCE);
    let length = 0;
    for await (const chunk of chunksOf(first)) length += chunk.length;
    assert.equal(length, CONTENT.length);
    const left = first[Symbol.asyncDispose]();
    const late = readAll(transfers.join(lab.source(), NEVER, PATIENCE));
    gate.resolve(undefined);
    assert.deepEqual(await late, WHOLE);
    await left;
    assert.equal(lab.cdn.ranges.length, 3);
    assert.equal(lab.cache.published.length, 1);
  });

  const others = [
    ['another version of the object', { object: { ...OBJECT, smallSha256: 'ef'.repeat(32) } }],
    ['an object of another name', { object: { ...OBJECT, bucket: 'c' } }],
    ['the object with another small part', { record: { ...SOURCE_RECORD, smallSha256: 'cd'.repeat(32) } }],
  ] as const;
  for (const [what, changes] of others) {
    it(`are kept apart for a caller who wants ${what}`, async () => {
      const followers = [
        transfers.join(lab.source(), NEVER, PATIENCE),
        transfers.join(lab.source(changes), NEVER, PATIENCE),
      ];
      assert.equal(transfers.size, 2);
      await Promise.all(followers.map(readAll));
      assert.equal(lab.cdn.ranges.length, 6);
      assert.equal(transfers.size, 0);
    });
  }

  it('let no caller join one that has failed', async () => {
    lab.cdn.beforeChunk = () => Promise.reject(new LoaderError('cdn_error', 'no'));
    await assert.rejects(readAll(transfers.join(lab.source(), NEVER, PATIENCE)), { code: 'cdn_error' });
    lab.cdn.beforeChunk = () => Promise.resolve();
    assert.deepEqual(await readAll(transfers.join(lab.source(), NEVER, PATIENCE)), WHOLE);
  });

  it('start anew for a caller who comes when all have just left, and do not forget the new one', async () => {
    const open = lab.cdn.holdFrom(2 * MIB);
    const left = transfers.join(lab.source(), NEVER, PATIENCE)[Symbol.asyncDispose]();
    const fresh = transfers.join(lab.source(), NEVER, PATIENCE);
    await left;
    assert.equal(transfers.size, 1);
    open();
    assert.deepEqual(await readAll(fresh), WHOLE);
    assert.equal(transfers.size, 0);
    assert.equal(lab.cache.published.length, 1);
  });
});
