import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LoaderError } from '../../../src/errors.ts';
import { DamagedDatabaseError, isDamaged, toStoreError } from '../../../src/tasks/store-error.ts';
import { addSchedules, openMemoryDatabase } from '../../support/task-lab.ts';

describe('what is wrong with the database', () => {
  it('is told in words that hold nothing of it', () => {
    const database = openMemoryDatabase();
    database.exec('PRAGMA query_only = 1');
    assert.throws(
      () => addSchedules(database, 1),
      (error) => toStoreError(error).message.endsWith(': it is read-only.'),
    );
    const error = toStoreError(new Error('the secret'));
    assert.equal(error.message, "The database of the tasks in STATE_DIR can't be used: unknown reason.");
    assert.equal(error.code, 'task_store_unavailable');
    assert.ok(error.cause instanceof Error);
  });

  it('is told by the primary of SQLite’s codes', () => {
    const told = (errcode: unknown) => toStoreError(Object.assign(new Error('x'), { errcode })).message;
    for (const [errcode, words] of [
      [5, /another Loader/],
      [5 | (1 << 8), /another Loader/],
      [10 | (4 << 8), /the disk reports errors/],
      [11 | (1 << 8), /it is damaged; it will be set aside in a moment/],
      [13, /the disk is full/],
      [14, /it can not be opened/],
      [26, /it is damaged/],
      [1, /unknown reason/],
      ['13', /unknown reason/],
    ] as const) {
      assert.match(told(errcode), words);
    }
  });

  it('stays as it is when it has been told already, and no other failure is taken for it', () => {
    const error = new LoaderError('task_store_unavailable', 'x');
    assert.equal(toStoreError(error), error);
    assert.equal(toStoreError(new LoaderError('validation_failed', 'x')).code, 'task_store_unavailable');
  });
});

describe('damage', () => {
  it('is what SQLite or the check of the pages calls so, and no other failure', () => {
    const withCode = (errcode: number) => Object.assign(new Error('x'), { errcode });
    for (const error of [withCode(11), withCode(26), withCode(11 | (1 << 8)), new DamagedDatabaseError()]) {
      assert.equal(isDamaged(error), true);
    }
    for (const message of ['no such table: tasks', 'no such column: uid', 'unsupported file format']) {
      assert.equal(isDamaged(Object.assign(new Error(message), { errcode: 1 })), true);
    }
    for (const error of [withCode(1), withCode(13), withCode(8), new Error('damaged'), undefined]) {
      assert.equal(isDamaged(error), false);
    }
  });
});
