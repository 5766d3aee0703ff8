import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Agenda } from '../../../../lab/links/agenda.ts';
import { makeRandom } from '../../../../lab/seeded-random.ts';

describe('Agenda', () => {
  it('does its work in the order of the times, and of the calls where these are the same', () => {
    const agenda = new Agenda();
    const random = makeRandom(3);
    const added = Array.from({ length: 500 }, (_, index) => ({ dueMs: Math.floor(random() * 50), index }));
    const done: typeof added = [];
    for (const { dueMs, index } of added) agenda.add(dueMs, (givenMs) => done.push({ dueMs: givenMs, index }));
    agenda.runUntil(24);
    assert.ok(done.every(({ dueMs }) => dueMs <= 24));
    agenda.runUntil(50);
    assert.deepEqual(
      done,
      added.toSorted((a, b) => a.dueMs - b.dueMs || a.index - b.index),
    );
    assert.equal(agenda.firstDueMs, undefined);
  });

  it('does what becomes due on the way, and says when the first time has become an earlier one', () => {
    let calls = 0;
    const agenda = new Agenda(() => calls++);
    const done: number[] = [];
    agenda.add(10, (nowMs) => agenda.add(nowMs + 5, (laterMs) => done.push(laterMs)));
    agenda.add(20, () => undefined);
    assert.equal(calls, 1);
    agenda.add(1, () => undefined);
    assert.equal(calls, 2);
    agenda.runUntil(16);
    assert.deepEqual(done, [15]);
    assert.equal(agenda.firstDueMs, 20);
  });
});
