import assert from 'node:assert/strict';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, it } from 'node:test';
import { KeyedLock } from '../../../src/async/keyed-lock.ts';

describe('the lock of a key', () => {
  it('has one holder at a time, in the order in which they came', async () => {
    const locks = new KeyedLock();
    const seen: string[] = [];
    const work = async (name: string) => {
      using _lock = await locks.acquire('key');
      seen.push(`${name} begins`);
      await nextTurn();
      seen.push(`${name} ends`);
    };
    await Promise.all(['a', 'b', 'c'].map(work));
    assert.deepEqual(seen, ['a begins', 'a ends', 'b begins', 'b ends', 'c begins', 'c ends']);
  });

  it('is another than the lock of another key', async () => {
    const locks = new KeyedLock();
    using _a = await locks.acquire('a');
    using _b = await locks.acquire('b');
  });

  it('is released when its holder fails', async () => {
    const locks = new KeyedLock();
    const failing = async () => {
      using _lock = await locks.acquire('key');
      throw new Error('no');
    };
    await assert.rejects(failing(), /no/);
    using _lock = await locks.acquire('key');
  });

  it('is released once: a second disposal does not let two holders in', async () => {
    const locks = new KeyedLock();
    const first = await locks.acquire('key');
    first[Symbol.dispose]();
    using _second = await locks.acquire('key');
    first[Symbol.dispose]();
    let isThirdIn = false;
    const third = locks.acquire('key').then((lock) => {
      isThirdIn = true;
      return lock;
    });
    await nextTurn();
    assert.equal(isThirdIn, false);
    _second[Symbol.dispose]();
    (await third)[Symbol.dispose]();
    assert.ok(isThirdIn);
  });
});
