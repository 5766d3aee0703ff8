import assert from 'node:assert/strict';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, it } from 'node:test';
import { Changes } from '../../../src/async/changes.ts';

describe('the next change', () => {
  it('is told to all that wait for it, once it is announced', async () => {
    const changes = new Changes();
    const told: string[] = [];
    void changes.next.then(() => told.push('first'));
    void changes.next.then(() => told.push('second'));
    await nextTurn();
    assert.deepEqual(told, []);
    changes.announce();
    await nextTurn();
    assert.deepEqual(told, ['first', 'second']);
  });

  it('is another one after each announcement', async () => {
    const changes = new Changes();
    changes.announce();
    let isTold = false;
    void changes.next.then(() => (isTold = true));
    await nextTurn();
    assert.equal(isTold, false);
    changes.announce();
    await nextTurn();
    assert.equal(isTold, true);
  });

  it('is not missed by a reader that takes it before it reads the state', async () => {
    const changes = new Changes();
    let state = 0;
    const seen: number[] = [];
    const reading = (async () => {
      for (;;) {
        const { next } = changes;
        seen.push(state);
        if (state === 3) return;
        await nextTurn(); // The state may change while the reader is busy.
        await next;
      }
    })();
    for (state = 1; state < 3; state++) {
      changes.announce();
      await nextTurn();
    }
    changes.announce();
    await reading;
    assert.equal(seen.at(-1), 3);
  });
});
