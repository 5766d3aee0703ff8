import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CopyHolds } from '../../../src/cache/copy-holds.ts';

describe('a copy', () => {
  it('is held from the call to the disposal', () => {
    const holds = new CopyHolds();
    assert.equal(holds.isHeld('a'), false);
    {
      using _hold = holds.hold('a');
      assert.equal(holds.isHeld('a'), true);
    }
    assert.equal(holds.isHeld('a'), false);
  });

  it('is held until the last of its readers has released it', () => {
    const holds = new CopyHolds();
    const [first, second] = [holds.hold('a'), holds.hold('a')];
    first[Symbol.dispose]();
    assert.equal(holds.isHeld('a'), true);
    second[Symbol.dispose]();
    assert.equal(holds.isHeld('a'), false);
  });

  it('counts a reader once, however often that one is disposed of', () => {
    const holds = new CopyHolds();
    const [first, second] = [holds.hold('a'), holds.hold('a')];
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    assert.equal(holds.isHeld('a'), true);
    second[Symbol.dispose]();
    const third = holds.hold('a');
    second[Symbol.dispose]();
    assert.equal(holds.isHeld('a'), true);
    third[Symbol.dispose]();
    assert.equal(holds.isHeld('a'), false);
  });

  it('is another than that of another key', () => {
    const holds = new CopyHolds();
    using _hold = holds.hold('a');
    assert.equal(holds.isHeld('b'), false);
  });
});
