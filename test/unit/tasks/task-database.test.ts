import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, open, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { LoaderError } from '../../../src/errors.ts';
import { MIGRATIONS } from '../../../src/tasks/migrations.ts';
import { openTaskDatabase } from '../../../src/tasks/task-database.ts';
import { addSchedules, countSchedules, makeLogger, pragma } from '../../support/task-lab.ts';

const TASK_DATABASE = path.resolve(import.meta.dirname, '../../../src/tasks/task-database.ts');
const PAGE = 4096;
const ROOT_SKIP = process.getuid?.() === 0 ? false : 'it needs root, to mount a small file system';

let folder = '';
let file = '';
let { logger, logLines } = makeLogger();

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-tasks-'));
  file = path.join(folder, 'tasks.db');
  ({ logger, logLines } = makeLogger());
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** A database of several pages that was closed well. */
async function makeFile(): Promise<void> {
  const database = await openTaskDatabase(folder, logger);
  addSchedules(database, 200);
  database.close();
}

async function overwrite(position: number, bytes: Buffer): Promise<void> {
  await using handle = await open(file, 'r+');
  await handle.write(bytes, 0, bytes.length, position);
}

async function fails(work: Promise<DatabaseSync>): Promise<LoaderError> {
  try {
    (await work).close();
  } catch (error) {
    assert.ok(error instanceof LoaderError);
    assert.equal(error.code, 'task_store_unavailable');
    return error;
  }
  return assert.fail('it was opened');
}

describe('the database of the tasks', () => {
  it('is made with its folders, and told how to write', async () => {
    const database = await openTaskDatabase(path.join(folder, 'a/b'), logger);
    assert.equal(pragma(database, 'journal_mode'), 'wal');
    assert.equal(pragma(database, 'synchronous'), 1);
    assert.equal(pragma(database, 'locking_mode'), 'exclusive');
    assert.equal(pragma(database, 'foreign_keys'), 1);
    assert.equal(pragma(database, 'journal_size_limit'), 4 * 1024 * 1024);
    assert.equal(pragma(database, 'user_version'), MIGRATIONS.length);
    assert.equal(countSchedules(database), 0);
    database.close();
    assert.deepEqual(await readdir(path.join(folder, 'a/b')), ['tasks.db']);
    assert.deepEqual(logLines, []);
  });

  it('can be read by its owner alone, with all files beside it, also where it could be read by others before', async () => {
    for (const wasOpen of [false, true]) {
      if (wasOpen) await chmod(file, 0o644);
      const database = await openTaskDatabase(folder, logger);
      addSchedules(database, 1, String(wasOpen));
      const modes = [file, `${file}-wal`].map((name) => statSync(name).mode & 0o777);
      assert.deepEqual(modes, [0o600, 0o600]);
      database.close();
    }
  });

  it('has what it had when it is opened again', async () => {
    await makeFile();
    const database = await openTaskDatabase(folder, logger);
    assert.equal(countSchedules(database), 200);
    assert.equal(pragma(database, 'user_version'), MIGRATIONS.length);
    database.close();
    assert.deepEqual(await readdir(folder), ['tasks.db']);
  });

  it('has what it had after its process was killed', async () => {
    const { signal, stderr } = writeAndDie('');
    assert.equal(signal, 'SIGKILL', stderr);
    assert.ok((await readdir(folder)).includes('tasks.db-wal'));
    const database = await openTaskDatabase(folder, logger);
    assert.equal(countSchedules(database), 310);
    database.close();
    assert.deepEqual(logLines, []);
  });

  it('gets its tables where only the file was made', async () => {
    new DatabaseSync(file).close();
    await writeFile(file, '');
    const database = await openTaskDatabase(folder, logger);
    assert.equal(pragma(database, 'user_version'), MIGRATIONS.length);
    database.close();
  });
});

describe('a damaged database', () => {
  const damages: readonly (readonly [what: string, damage: () => Promise<void>])[] = [
    ['a text', () => writeFile(file, 'This is a text, and no database.\n'.repeat(300))],
    ['a short text', () => writeFile(file, 'no')],
    ['cut within its first page', () => truncate(file, PAGE / 2)],
    ['cut after three pages', () => truncate(file, 3 * PAGE)],
    ['cut within its last page but one', async () => truncate(file, (await stat(file)).size - PAGE - 100)],
    ['one with a first page that is overwritten', () => overwrite(0, Buffer.alloc(PAGE, 'x'))],
    ['one with a wrong page size', () => overwrite(16, Buffer.from([7, 7]))],
    [
      'one with a page that is overwritten',
      async () => overwrite((await stat(file)).size - PAGE, Buffer.alloc(PAGE, 7)),
    ],
    ['one with a page of zeros', async () => overwrite((await stat(file)).size - PAGE, Buffer.alloc(PAGE))],
  ];

  for (const [what, damage] of damages) {
    it(`is set aside as it is, and a new one takes its place: ${what}`, async () => {
      await makeFile();
      await damage();
      const bytes = await readFile(file);
      const database = await openTaskDatabase(folder, logger);
      assert.equal(countSchedules(database), 0);
      addSchedules(database, 3);
      database.close();

      const [name, aside, ...others] = (await readdir(folder)).sort();
      assert.deepEqual([name, others], ['tasks.db', []]);
      assert.match(aside ?? '', /^tasks\.db\.damaged-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}Z$/);
      assert.ok((await readFile(path.join(folder, aside ?? ''))).equals(bytes));
      assert.equal(logLines.length, 1);
      assert.match(logLines[0] ?? '', /"level":"error".*set aside in STATE_DIR, and history and schedules begin anew/);
      assert.ok(logLines[0]?.includes(aside ?? ''));

      const again = await openTaskDatabase(folder, logger);
      assert.equal(countSchedules(again), 3);
      again.close();
    });
  }

  it('does not take the place of one that was set aside before, of which the three newest stay', async () => {
    for (const text of ['first', 'second', 'third', 'fourth']) {
      await writeFile(file, text);
      (await openTaskDatabase(folder, logger)).close();
      await sleep(2);
    }
    const asides = (await readdir(folder)).filter((name) => name.includes('damaged')).sort();
    const texts = await Promise.all(asides.map((name) => readFile(path.join(folder, name), 'utf8')));
    assert.deepEqual(texts, ['second', 'third', 'fourth']);
  });

  it('takes along the log that lies beside it', async () => {
    await writeFile(file, 'This is a text, and no database.\n'.repeat(300));
    await writeFile(`${file}-wal`, 'the log of it');
    await writeFile(`${file}-shm`, 'the index of that, which can be made of it');
    (await openTaskDatabase(folder, logger)).close();
    const [name, aside = '', log = '', ...others] = (await readdir(folder)).sort();
    assert.deepEqual([name, log, others], ['tasks.db', `${aside}-wal`, []]);
    assert.equal(await readFile(path.join(folder, log), 'utf8'), 'the log of it');
  });

  it('takes along no log that is empty', async () => {
    await writeFile(file, 'This is a text, and no database.\n'.repeat(300));
    await writeFile(`${file}-wal`, '');
    (await openTaskDatabase(folder, logger)).close();
    assert.equal((await readdir(folder)).length, 2);
  });

  it('of a process that was killed is set aside as it is', async () => {
    writeAndDie("database.exec('PRAGMA wal_checkpoint(TRUNCATE)');");
    await overwrite(4 * PAGE, Buffer.alloc(PAGE, 7));
    const before = await Promise.all(['', '-wal'].map((companion) => readFile(file + companion)));
    const database = await openTaskDatabase(folder, logger);
    assert.equal(countSchedules(database), 0);
    database.close();
    const aside = (await readdir(folder)).find((name) => /damaged.*Z$/.test(name)) ?? '';
    assert.ok((await readFile(path.join(folder, aside))).equals(before[0] ?? Buffer.alloc(0)));
    assert.ok((await readFile(path.join(folder, `${aside}-wal`))).equals(before[1] ?? Buffer.alloc(0)));
  });
});

describe('a database that another Loader uses', () => {
  it('is refused, and neither harmed nor set aside', async () => {
    const first = await openTaskDatabase(folder, logger);
    addSchedules(first, 1);
    const error = await fails(openTaskDatabase(folder, logger));
    assert.match(error.message, /another Loader uses it: give each Loader a STATE_DIR of its own\.$/);
    assert.equal(countSchedules(first), 1);
    first.close();
    const second = await openTaskDatabase(folder, logger);
    assert.equal(countSchedules(second), 1);
    second.close();
    assert.deepEqual(await readdir(folder), ['tasks.db']);
    assert.deepEqual(logLines, []);
  });
});

describe('a STATE_DIR that can not be used', () => {
  it('is told when it is a file', async () => {
    const stateDir = path.join(folder, 'state');
    await writeFile(stateDir, 'a file');
    assert.match(
      (await fails(openTaskDatabase(stateDir, logger))).message,
      /it can not be opened: check that the user/,
    );
    assert.equal(await readFile(stateDir, 'utf8'), 'a file');
  });

  it('is told when it is below a file', async () => {
    await writeFile(path.join(folder, 'state'), 'a file');
    assert.match((await fails(openTaskDatabase(path.join(folder, 'state/x'), logger))).message, /: ENOTDIR\.$/);
  });

  it('is told at once when nothing can be made there, in /proc for instance', async () => {
    const start = performance.now();
    assert.match((await fails(openTaskDatabase('/proc/x/y', logger))).message, /: ENOENT\.$/);
    assert.ok(performance.now() - start < 1_000);
  });

  it('is told when the name of the database is taken by a folder', async () => {
    await mkdir(file);
    assert.match((await fails(openTaskDatabase(folder, logger))).message, /it can not be opened/);
    assert.deepEqual(await readdir(folder), ['tasks.db']);
  });

  it('is told when its disk is full, before anything is run', { skip: ROOT_SKIP }, async () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder]);
    try {
      const database = await openTaskDatabase(folder, logger);
      addSchedules(database, 20);
      database.close();
      const filler = path.join(folder, 'filler');
      await assert.rejects(writeFile(filler, Buffer.alloc(2 * 1024 * 1024)), { code: 'ENOSPC' });
      assert.match((await fails(openTaskDatabase(folder, logger))).message, /the disk is full\.$/);
      await rm(filler);
      const again = await openTaskDatabase(folder, logger);
      assert.equal(countSchedules(again), 20);
      again.close();
      assert.deepEqual(logLines, []);
    } finally {
      execFileSync('umount', ['-l', folder]);
    }
  });
});

/** A process that writes 300 schedules, runs `then`, writes 10 more, and is killed. */
function writeAndDie(then: string): { readonly signal: string | null; readonly stderr: string } {
  const program = `
    import { openTaskDatabase } from ${JSON.stringify(TASK_DATABASE)};
    const database = await openTaskDatabase(${JSON.stringify(folder)}, undefined);
    const columns = '(id, provider, parameters, cron, timezone, catch_up, created_at, last_run)';
    const values = "(?, 'p', '{}', '" + 'x'.repeat(500) + "', 'UTC', 0, 1, 'null')";
    const sql = 'INSERT INTO schedules ' + columns + ' VALUES ' + values;
    for (let index = 0; index < 300; index++) database.prepare(sql).run('id-' + index);
    ${then}
    for (let index = 300; index < 310; index++) database.prepare(sql).run('id-' + index);
    process.kill(process.pid, 'SIGKILL');
  `;
  const options = { encoding: 'utf8' } as const;
  return spawnSync(process.execPath, ['--input-type=module', '--eval', program], options);
}
