import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { migrate, MIGRATIONS } from '../../../src/tasks/migrations.ts';
import { openTaskDatabase } from '../../../src/tasks/task-database.ts';
import { addSchedules, countSchedules, makeLogger, pragma } from '../../support/task-lab.ts';

const { logger } = makeLogger();
let folder = '';
let file = '';

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-migrations-'));
  file = path.join(folder, 'tasks.db');
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

const UNAVAILABLE = { name: 'LoaderError', code: 'task_store_unavailable' };

describe('the schema of the database', () => {
  it('is made once, and keeps what is in it', () => {
    const database = new DatabaseSync(':memory:');
    for (let start = 1; start <= 3; start++) {
      migrate(database);
      addSchedules(database, 1, `start-${start}`);
      assert.equal(countSchedules(database), start);
      assert.equal(pragma(database, 'user_version'), MIGRATIONS.length);
    }
  });

  it('of a newer Loader is left alone, and the error tells the way out', async () => {
    (await openTaskDatabase(folder, logger)).close();
    const newer = new DatabaseSync(file);
    newer.exec(`PRAGMA user_version = ${MIGRATIONS.length + 1}`);
    newer.close();
    const before = await readFile(file);
    await assert.rejects(openTaskDatabase(folder, logger), {
      ...UNAVAILABLE,
      message: 'A newer Loader made the database of the tasks; use that Loader, or move tasks.db out of STATE_DIR.',
    });
    assert.ok((await readFile(file)).equals(before));
    assert.deepEqual(await readdir(folder), ['tasks.db']);
    // The attempt has left no lock.
    const again = new DatabaseSync(file);
    again.exec(`PRAGMA user_version = ${MIGRATIONS.length}`);
    again.close();
    (await openTaskDatabase(folder, logger)).close();
  });

  it('is not there at all where its making failed half-way', async () => {
    const other = new DatabaseSync(file);
    other.exec('CREATE TABLE schedules (x)');
    other.close();
    await assert.rejects(openTaskDatabase(folder, logger), UNAVAILABLE);
    const left = new DatabaseSync(file);
    assert.deepEqual(
      left
        .prepare('SELECT name FROM sqlite_schema')
        .all()
        .map((row) => row['name']),
      ['schedules'],
    );
    assert.equal(pragma(left, 'user_version'), 0);
    left.close();
  });
});
