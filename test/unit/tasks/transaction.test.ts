import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { toStoreError } from '../../../src/tasks/store-error.ts';
import { inTransaction } from '../../../src/tasks/transaction.ts';
import { addSchedules, countSchedules, openMemoryDatabase, pragma } from '../../support/task-lab.ts';

describe('a transaction', () => {
  it('returns what its work returns, and keeps all of it', () => {
    const database = openMemoryDatabase();
    assert.equal(
      inTransaction(database, () => {
        addSchedules(database, 2);
        return 'answer';
      }),
      'answer',
    );
    assert.equal(database.isTransaction, false);
    assert.equal(countSchedules(database), 2);
  });

  it('keeps nothing when its work fails, and the next one works', () => {
    const database = openMemoryDatabase();
    const failure = new Error('no');
    assert.throws(
      () =>
        inTransaction(database, () => {
          addSchedules(database, 2);
          throw failure;
        }),
      failure,
    );
    assert.equal(database.isTransaction, false);
    assert.equal(countSchedules(database), 0);
    inTransaction(database, () => addSchedules(database, 1));
    assert.equal(countSchedules(database), 1);
  });

  it('keeps nothing on a full disk, and tells that', () => {
    const database = openMemoryDatabase();
    database.exec(`PRAGMA max_page_count = ${Number(pragma(database, 'page_count')) + 1}`);
    assert.throws(
      () => {
        inTransaction(database, () => addSchedules(database, 500));
      },
      (error) => toStoreError(error).message.endsWith('the disk is full.'),
    );
    assert.equal(database.isTransaction, false);
    assert.equal(countSchedules(database), 0);
  });
});
