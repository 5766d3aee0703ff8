import assert from 'node:assert/strict';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, it } from 'node:test';
import { forEachLimit } from '../../../src/async/for-each-limit.ts';

/** Work that the test ends, item by item. */
class Work {
  readonly begun: number[] = [];
  readonly #ends = new Map<number, PromiseWithResolvers<undefined>>();

  run = async (item: number): Promise<void> => {
    this.begun.push(item);
    const end = Promise.withResolvers<undefined>();
    this.#ends.set(item, end);
    await end.promise;
  };

  async end(item: number, error?: unknown): Promise<void> {
    const end = this.#ends.get(item);
    assert.ok(end, `${item} did not begin`);
    if (error === undefined) end.resolve(undefined);
    else end.reject(error);
    await nextTurn();
  }
}

describe('work in parallel', () => {
  it('is done for each item once, so many at a time, in their order', async () => {
    const work = new Work();
    const done = forEachLimit([1, 2, 3, 4, 5], 2, work.run);
    await nextTurn();
    assert.deepEqual(work.begun, [1, 2]);
    await work.end(2);
    assert.deepEqual(work.begun, [1, 2, 3]);
    await work.end(3);
    await work.end(4);
    assert.deepEqual(work.begun, [1, 2, 3, 4, 5]);
    await work.end(1);
    await work.end(5);
    await done;
  });

  it('is done one after the other with a count of one', async () => {
    const events: string[] = [];
    await forEachLimit(['a', 'b', 'c'], 1, async (item) => {
      events.push(`+${item}`);
      await nextTurn();
      events.push(`-${item}`);
    });
    assert.deepEqual(events, ['+a', '-a', '+b', '-b', '+c', '-c']);
  });

  it('is nothing for no items, and takes a count that is larger than theirs', async () => {
    await forEachLimit([], 3, () => assert.fail('there is nothing to do'));
    const seen: number[] = [];
    await forEachLimit([1, 2], 100, (item) => {
      seen.push(item);
      return Promise.resolve();
    });
    assert.deepEqual(seen, [1, 2]);
  });

  it('takes items that are undefined, and the same one twice', async () => {
    const seen: unknown[] = [];
    await forEachLimit([undefined, 1, 1, undefined], 2, (item) => {
      seen.push(item);
      return Promise.resolve();
    });
    assert.deepEqual(seen, [undefined, 1, 1, undefined]);
  });

  it('begins nothing more after a failure, which is told when all that runs has ended', async () => {
    const work = new Work();
    const failure = new Error('first');
    let told: unknown;
    const done = forEachLimit([1, 2, 3, 4, 5], 3, work.run).catch((error: unknown) => (told = error));
    await nextTurn();
    await work.end(2, failure);
    assert.equal(told, undefined);
    await work.end(1);
    await work.end(3, new Error('second'));
    await done;
    assert.equal(told, failure);
    assert.deepEqual(work.begun, [1, 2, 3]);
  });

  it('fails with work that throws at once, or throws what is no Error', async () => {
    const begun: number[] = [];
    await assert.rejects(
      forEachLimit([1, 2, 3], 1, (item) => {
        begun.push(item);
        throw new TypeError('at once');
      }),
      /at once/,
    );
    assert.deepEqual(begun, [1]);
    const thrown: unknown = undefined;
    await assert.rejects(
      forEachLimit([1], 1, () => {
        throw thrown;
      }),
      Error,
    );
  });
});
