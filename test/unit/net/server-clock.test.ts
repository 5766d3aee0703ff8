import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { ServerClock } from '../../../src/net/server-clock.ts';

const HOUR_MS = 3600_000;

let corrections: number[];
let clock: ServerClock;

beforeEach(() => {
  corrections = [];
  clock = new ServerClock({ onCorrection: (offsetMs) => corrections.push(offsetMs) });
});

const timeAt = (offsetMs: number) => new Date(Date.now() + offsetMs).toUTCString();
const isAbout = (value: number | null | undefined, expected: number) =>
  assert.ok(Math.abs((value ?? NaN) - expected) < 5000, `${value} in place of ${expected}`);

describe('the clock of the servers', () => {
  it('is unknown before the first answer, and then known by its Date', () => {
    assert.equal(clock.offsetMs, null);
    clock.note({ date: 'no date' });
    clock.note({});
    assert.equal(clock.offsetMs, null);
    clock.note({ date: timeAt(-HOUR_MS) });
    isAbout(clock.offsetMs, -HOUR_MS);
    assert.equal(clock.correctionMs, 0);
  });

  it('is not that of an answer out of a cache', () => {
    clock.note({ date: timeAt(HOUR_MS), age: '5' });
    assert.equal(clock.offsetMs, null);
  });

  it('counts for signatures when one was refused, and tells it once for all that were under way', () => {
    const refusal = { serverTime: timeAt(HOUR_MS), isAboutTime: true };
    assert.deepEqual(
      [1, 2, 3, 4].map(() => clock.corrects(refusal, 0)),
      [true, true, true, true],
    );
    assert.equal(corrections.length, 1);
    isAbout(corrections[0], HOUR_MS);
    isAbout(clock.correctionMs, HOUR_MS);
    // It was signed with the right time, and so it is refused for another reason.
    assert.equal(clock.corrects(refusal, clock.correctionMs), false);
  });

  it('counts again when the clock of the device was set right', () => {
    clock.corrects({ serverTime: timeAt(HOUR_MS), isAboutTime: true }, 0);
    assert.ok(clock.corrects({ serverTime: timeAt(0), isAboutTime: true }, clock.correctionMs));
    isAbout(clock.correctionMs, 0);
    assert.equal(corrections.length, 2);
  });

  it('does not count where the server names no time and the clocks agree well enough for a signature', () => {
    assert.equal(clock.corrects({ serverTime: timeAt(100_000), isAboutTime: false }, 0), false);
    assert.equal(clock.corrects({ serverTime: undefined, isAboutTime: true }, 0), false);
    assert.equal(clock.correctionMs, 0);
    assert.ok(clock.corrects({ serverTime: timeAt(100_000), isAboutTime: true }, 0));
    assert.ok(clock.corrects({ serverTime: timeAt(HOUR_MS), isAboutTime: false }, clock.correctionMs));
  });
});
