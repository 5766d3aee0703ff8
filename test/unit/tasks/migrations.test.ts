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
    newer.exec(`ALTER TABLE schedules ADD COLUMN more TEXT; PRAGMA user_version = ${MIGRATIONS.length + 1}`);
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
    again.exec(`ALTER TABLE schedules DROP COLUMN more; PRAGMA user_version = ${MIGRATIONS.length}`);
    again.close();
    (await openTaskDatabase(folder, logger)).close();
  });

  it('of this Loader is its own under any number', async () => {
    for (const version of [0, MIGRATIONS.length + 1, -1]) {
      const database = await openTaskDatabase(folder, logger);
      addSchedules(database, 1, `before ${version}`.replaceAll(' ', '-'));
      database.exec(`PRAGMA user_version = ${version}`);
      database.close();
    }
    const database = await openTaskDatabase(folder, logger);
    assert.equal(countSchedules(database), 3);
    assert.equal(pragma(database, 'user_version'), MIGRATIONS.length);
    database.close();
  });

  it('may have parts of a user', async () => {
    const database = await openTaskDatabase(folder, logger);
    database.exec('CREATE INDEX of_a_user ON tasks (code)');
    database.close();
    (await openTaskDatabase(folder, logger)).close();
    assert.deepEqual(await readdir(folder), ['tasks.db']);
  });

  for (const [what, sql] of [
    ['another program', 'DROP TABLE schedules; CREATE TABLE schedules (x)'],
    ['a table less', 'DROP TABLE pending_retries'],
    ['a column more', 'ALTER TABLE tasks ADD COLUMN more TEXT'],
    ['an index less', 'DROP INDEX tasks_by_end'],
    ['a half-made one', 'DROP TABLE tasks; PRAGMA user_version = 0'],
  ] as const) {
    it(`that is wrong is set aside with its file, and a new one begins: ${what}`, async () => {
      (await openTaskDatabase(folder, logger)).close();
      const other = new DatabaseSync(file);
      other.exec(sql);
      other.close();
      const database = await openTaskDatabase(folder, logger);
      addSchedules(database, 1);
      database.close();
      assert.match((await readdir(folder)).join(), /^tasks\.db,tasks\.db\.damaged-[^,]*Z$/);
    });
  }
});
