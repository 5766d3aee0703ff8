import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { ActiveWork } from '../../../src/async/active-work.ts';

describe('the active work', () => {
  it('is settled when there is none', async () => {
    await new ActiveWork().settled();
  });

  it('is settled when the last piece of it has ended, in whatever order they end', async () => {
    const work = new ActiveWork();
    const events: string[] = [];
    const [a, b] = [work.track(), work.track()];
    const settled = work.settled().then(() => events.push('settled'));
    b[Symbol.dispose]();
    await turn();
    events.push('one is left');
    a[Symbol.dispose]();
    await settled;
    assert.deepEqual(events, ['one is left', 'settled']);
  });

  it('counts a piece once, however often it is disposed of', async () => {
    const work = new ActiveWork();
    const [a, b] = [work.track(), work.track()];
    a[Symbol.dispose]();
    a[Symbol.dispose]();
    const events: string[] = [];
    const settled = work.settled().then(() => events.push('settled'));
    await turn();
    events.push('one is left');
    b[Symbol.dispose]();
    await settled;
    assert.deepEqual(events, ['one is left', 'settled']);
  });

  it('waits for work that begins while it waits', async () => {
    const work = new ActiveWork();
    const first = work.track();
    const events: string[] = [];
    const settled = work.settled().then(() => events.push('settled'));
    const second = work.track();
    first[Symbol.dispose]();
    await turn();
    events.push('the second is left');
    second[Symbol.dispose]();
    await settled;
    assert.deepEqual(events, ['the second is left', 'settled']);
  });
});
