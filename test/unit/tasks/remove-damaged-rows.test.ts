import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { findProblems } from '../../../src/tasks/check-pages.ts';
import { openTaskDatabase } from '../../../src/tasks/task-database.ts';
import { TaskStore } from '../../../src/tasks/task-store.ts';
import {
  addEndedTask,
  addSchedules,
  countSchedules,
  DAY_MS,
  makeLine,
  makeLogger,
  makeTask,
} from '../../support/task-lab.ts';

let folder = '';
let file = '';
let { logger, logLines } = makeLogger();

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-rows-'));
  file = path.join(folder, 'tasks.db');
  ({ logger, logLines } = makeLogger());
  const database = await openTaskDatabase(folder, logger);
  const store = makeStore(database);
  for (const uid of ['task-a', 'task-b', 'task-c']) addEndedTask(store, uid, { parameters: { text: `of ${uid}` } });
  store.insert(makeTask({ uid: 'task-d' }));
  for (const line of [1, 2, 3]) store.addLine('task-d', makeLine(line));
  addSchedules(database, 3, 'schedule');
  database.close();
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

function makeStore(database: DatabaseSync): TaskStore {
  return new TaskStore({ database, logger, historyCount: 100, historyAgeMs: 90 * DAY_MS });
}

/** Changes the file as failing flash does: SQLite knows nothing of it. */
async function replaceBytes(from: string, to: string): Promise<void> {
  assert.equal(from.length, to.length);
  const text = await readFile(file, 'latin1');
  assert.ok(text.includes(from));
  await writeFile(file, text.replaceAll(from, to), 'latin1');
}

/** Opens the damaged database twice, and returns the uids of its tasks. */
async function open(): Promise<string[]> {
  (await openTaskDatabase(folder, logger)).close();
  const told = logLines.length;
  const database = await openTaskDatabase(folder, logger);
  assert.equal(logLines.length, told, 'the damage has come back');
  assert.deepEqual(findProblems(database), []);
  assert.deepEqual(
    (await readdir(folder)).filter((name) => name.includes('damaged')),
    [],
  );
  const uids = makeStore(database)
    .history({ limit: 100 })
    .tasks.map(({ uid }) => uid);
  assert.equal(countSchedules(database), 3);
  database.close();
  return uids;
}

describe('a row with a wrong byte', () => {
  for (const [what, from, to] of [
    ['in a text of JSON', '{"text":"of task-b"}', '{"text":"of task-b"]'],
    ['in a uid, which an index has too', 'task-bp-task-b', 'task b_-task-b'],
  ] as const) {
    it(`is removed at the start, and told with its uid: ${what}`, async () => {
      await replaceBytes(from, to);
      assert.deepEqual(await open(), ['task-d', 'task-c', 'task-a']);
      assert.equal(logLines.length, 1);
      assert.match(logLines[0] ?? '', /"table":"tasks","rows":1,"uid":\["task[ -]b/);
    });
  }

  it('in a status that SQLite itself refuses is removed too', async () => {
    await replaceBytes('p-task-bcomplete', 'p-task-bcomplets');
    assert.deepEqual(await open(), ['task-d', 'task-c', 'task-a']);
  });

  it('in an index alone costs no row', async () => {
    const text = await readFile(file, 'latin1');
    // The row has it beside its provider `p-task-b` and in its parameters; the index has it by itself.
    const index = text.search(/(?<!p-|of )task-b(?!p)/);
    assert.ok(index > 0);
    await writeFile(file, `${text.slice(0, index)}tbsk-b${text.slice(index + 6)}`, 'latin1');
    assert.deepEqual(await open(), ['task-d', 'task-c', 'task-b', 'task-a']);
  });

  it('in a log costs that line', async () => {
    await replaceBytes('infoline 2', 'jnfoline 2');
    assert.equal((await open()).length, 4);
    const database = await openTaskDatabase(folder, logger);
    assert.deepEqual(makeStore(database).lines('task-d', 0), [makeLine(1), makeLine(3)]);
    database.close();
    assert.match(logLines[0] ?? '', /"table":"task_logs","rows":1/);
  });

  it('in a schedule costs that schedule', async () => {
    const database = new DatabaseSync(file);
    database.exec("UPDATE schedules SET last_run = '{\"dueAtMs\":1}' WHERE id = 'schedule-1'");
    database.close();
    const opened = await openTaskDatabase(folder, logger);
    assert.equal(countSchedules(opened), 2);
    opened.close();
    assert.match(logLines[0] ?? '', /"table":"schedules","rows":1,"id":\["schedule-1"\]/);
  });
});

it('a last number of a task that leaves no room for a next one is set right', async () => {
  const database = new DatabaseSync(file);
  database.exec('UPDATE sqlite_sequence SET seq = 9223372036854775807');
  database.close();
  const opened = await openTaskDatabase(folder, logger);
  makeStore(opened).insert(makeTask({ uid: 'next', provider: 'next' }));
  assert.equal(opened.prepare("SELECT seq FROM tasks WHERE uid = 'next'").get()?.['seq'], 5);
  opened.close();
});
