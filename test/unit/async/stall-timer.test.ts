import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeEach, describe, it, type TestContext } from 'node:test';
import { StallTimer } from '../../../src/async/stall-timer.ts';

let stalls = 0;

/** A timer of 100 ms whose clock the test moves. */
function start(t: TestContext): StallTimer {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  return new StallTimer(100, () => stalls++);
}

describe('a stall', () => {
  beforeEach(() => {
    stalls = 0;
  });

  it('is told when nothing has moved for the whole time, and once', (t) => {
    using _timer = start(t);
    t.mock.timers.tick(99);
    assert.equal(stalls, 0);
    t.mock.timers.tick(1);
    assert.equal(stalls, 1);
    t.mock.timers.tick(1000);
    assert.equal(stalls, 1);
  });

  // In real time: the refresh of a mocked timer does nothing.
  it('is put off by each movement', async () => {
    using timer = new StallTimer(100, () => stalls++);
    for (let at = 0; at < 8; at++) {
      await sleep(30);
      timer.pat();
    }
    assert.equal(stalls, 0);
    await sleep(150);
    assert.equal(stalls, 1);
  });

  it('is none in a pause, and has its whole time after it', (t) => {
    using timer = start(t);
    t.mock.timers.tick(99);
    timer.pause();
    timer.pat(); // A movement does not end the pause.
    t.mock.timers.tick(1000);
    assert.equal(stalls, 0);
    timer.resume();
    timer.resume();
    t.mock.timers.tick(99);
    assert.equal(stalls, 0);
    t.mock.timers.tick(1);
    assert.equal(stalls, 1);
  });

  it('is never told after the disposal', (t) => {
    const timer = start(t);
    timer[Symbol.dispose]();
    timer.pat();
    t.mock.timers.tick(1000);
    assert.equal(stalls, 0);
  });
});
