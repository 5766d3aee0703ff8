import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { RepeatedLine } from '../../../src/log/repeated-line.ts';

let nowMs = 0;

beforeEach(() => {
  nowMs = 1_000;
  mock.method(performance, 'now', () => nowMs);
});
afterEach(() => mock.restoreAll());

describe('a line that is repeated', () => {
  it('is written at first, and then once a minute with a count', () => {
    const line = new RepeatedLine();
    assert.equal(line.times('a'), 1);
    for (let second = 1; second < 60; second++) {
      nowMs += 1_000;
      assert.equal(line.times('a'), undefined);
    }
    nowMs += 1_000;
    assert.equal(line.times('a'), 60);
    assert.equal(line.times('a'), undefined);
  });

  it('is written at once when it is of another kind', () => {
    const line = new RepeatedLine();
    assert.deepEqual([line.times('a'), line.times('b'), line.times('b'), line.times('a')], [1, 1, undefined, 1]);
  });
});
