import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { unfinishedPercent } from '../../../src/async/unfinished-percent.ts';

describe('the percentage of unfinished work', () => {
  it('is a whole number that never goes back and stays below 100, whatever is reported', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: -10, max: 1e9, noNaN: true })), (reports) => {
        let shown = 0;
        for (const report of reports) {
          const next = unfinishedPercent(shown, report);
          assert.ok(Number.isInteger(next) && next >= shown && next <= 99);
          shown = next;
        }
      }),
    );
  });

  it('follows what is reported, rounded down', () => {
    assert.equal(unfinishedPercent(0, 0), 0);
    assert.equal(unfinishedPercent(3, 41.99), 41);
    assert.equal(unfinishedPercent(41, 98.5), 98);
    assert.equal(unfinishedPercent(98, 100), 99);
  });
});
