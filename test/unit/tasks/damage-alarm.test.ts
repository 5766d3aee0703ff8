import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DamageAlarm } from '../../../src/tasks/damage-alarm.ts';

const NOT_YET = Symbol('not yet');

async function isRaised(alarm: DamageAlarm): Promise<boolean> {
  return (await Promise.race([alarm.found, Promise.resolve(NOT_YET)])) !== NOT_YET;
}

function fail(errcode: number): never {
  throw Object.assign(new Error('the secret'), { errcode });
}

describe('work with the database', () => {
  it('returns its value, and has its error told', async () => {
    const alarm = new DamageAlarm();
    assert.equal(
      alarm.guard(() => 7),
      7,
    );
    assert.throws(() => alarm.guard(() => fail(1)), { code: 'task_store_unavailable', message: /unknown reason/ });
    assert.equal(await isRaised(alarm), false);
  });

  it('raises the alarm when it finds damage', async () => {
    const alarm = new DamageAlarm();
    assert.throws(() => alarm.guard(() => fail(11)), { code: 'task_store_unavailable', message: /it is damaged/ });
    assert.equal(await isRaised(alarm), true);
  });
});
