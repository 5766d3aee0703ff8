import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { LoaderProcess } from '../../../lab/loader-process.ts';
import { findProcesses } from '../../../lab/proc.ts';
import { SERVICES_FOLDER } from '../../../lab/services/services.ts';
import { eventually } from '../../../lab/waiting.ts';
import { FolderLock } from '../../../src/files/folder-lock.ts';

const ROOT_SKIP = process.getuid?.() === 0 ? false : 'it needs root, to mount file systems and to change owners';
const NOBODY = 65_534;
const AUTHORIZATION = { authorization: 'Bearer key-of-the-folders' };
/** Then a start waits for another Loader for little more than 2 s. */
const SHORT_WAIT = { SHUTDOWN_TIMEOUT_MS: '1' };
const WAITING = 'Another Loader uses a folder: waiting for its end';
const FOLDERS = [
  { variable: 'STATE_DIR', name: 'state', lock: 'state.lock', missing: 'there are no tasks and schedules' },
  { variable: 'MODEL_CACHE_DIR', name: 'models', lock: 'cache.lock', missing: 'nothing is cached' },
] as const;

let root = '';
let loaders: LoaderProcess[] = [];
let mounts: string[] = [];

beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), 'loader-folders-'));
  await chmod(root, 0o755);
});

afterEach(async () => {
  for (const loader of loaders) await loader.stop('SIGKILL');
  for (const mount of mounts) execFileSync('umount', ['-l', mount]);
  loaders = [];
  mounts = [];
  await rm(root, { recursive: true, force: true });
});

function at(...names: readonly string[]): string {
  return path.join(root, ...names);
}

function logPath(name: string): string {
  return at(`${name}.log`);
}

async function start(env: Readonly<Record<string, string>> = {}, name = 'first', uid?: number): Promise<LoaderProcess> {
  const loader = await LoaderProcess.start({
    env: {
      HARDWARE_ID: 'test-hardware',
      API_KEY: 'key-of-the-folders',
      NODE_COMPILE_CACHE: path.join(SERVICES_FOLDER, 'compile-cache'),
      STATE_DIR: at('state'),
      MODEL_CACHE_DIR: at('models'),
      ...env,
    },
    logPath: logPath(name),
    ...(uid === undefined ? {} : { uid }),
  });
  loaders.push(loader);
  return loader;
}

/** The messages of warnings and errors until now. */
function warnings(loader: LoaderProcess): string[] {
  return loader
    .log()
    .split('\n')
    .filter((line) => /^\{"level":"(warn|error)"/.test(line))
    .map((line) => (JSON.parse(line) as { msg: string }).msg)
    .filter((message) => message.includes('_DIR'));
}

async function mount(folder: string, options: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  execFileSync('mount', ['-t', 'tmpfs', '-o', `mode=0700,${options}`, 'tmpfs', folder]);
  mounts.push(folder);
}

/** The first Loader waits for the lock of a folder. */
async function isWaiting(): Promise<void> {
  const log = async () => await readFile(logPath('first'), 'utf8').catch(() => '');
  await eventually(async () => (await log()).includes(WAITING), { timeoutMs: 20_000 });
}

async function statusOf(loader: LoaderProcess, route: string): Promise<number> {
  return (await fetch(loader.url + route, { headers: AUTHORIZATION })).status;
}

async function modes(folder: string): Promise<Record<string, string>> {
  const entries = await readdir(folder, { recursive: true });
  const pairs = entries.map(async (name) => [name, ((await stat(path.join(folder, name))).mode & 0o777).toString(8)]);
  return Object.fromEntries((await Promise.all(pairs)) as [string, string][]);
}

describe('a start', () => {
  it("makes both folders for the Loader's user alone, and finds nothing to say", async () => {
    const loader = await start({ STATE_DIR: at('a/state'), MODEL_CACHE_DIR: at('b/models') });
    for (const folder of ['a', 'a/state', 'b', 'b/models']) assert.equal((await stat(at(folder))).mode & 0o777, 0o700);
    assert.deepEqual(await modes(at('b/models')), { 'cache.lock': '600' });
    const files = await modes(at('a/state'));
    assert.deepEqual(Object.keys(files).sort(), ['state.lock', 'tasks.db', 'tasks.db-wal']);
    assert.deepEqual([...new Set(Object.values(files))], ['600']);
    assert.equal((await stat(at('a/state/state.lock'))).size, 0);
    assert.deepEqual(warnings(loader), []);
  });

  it('takes one folder for both', async () => {
    const loader = await start({ STATE_DIR: at('one'), MODEL_CACHE_DIR: at('one') });
    assert.equal(await statusOf(loader, '/tasks'), 200);
    assert.deepEqual(warnings(loader), []);
  });

  it('tells who else may write to a folder, and leaves its mode', async () => {
    await mkdir(at('state'));
    await chmod(at('state'), 0o770);
    await mkdir(at('models'));
    await chmod(at('models'), 0o1777);
    const loader = await start();
    assert.deepEqual(warnings(loader), [
      `STATE_DIR (${at('state')}) can be written by other users (mode 0770): chmod 700 ${at('state')}`,
      `MODEL_CACHE_DIR (${at('models')}) can be written by other users (mode 1777): chmod 700 ${at('models')}`,
    ]);
    assert.equal((await stat(at('models'))).mode & 0o7777, 0o1777);
  });

  it('tells of a folder that is that of another user', { skip: ROOT_SKIP }, async () => {
    await mkdir(at('state'), { mode: 0o700 });
    await chown(at('state'), NOBODY, NOBODY);
    const loader = await start();
    assert.deepEqual(warnings(loader), [
      `STATE_DIR (${at('state')}) belongs to the user 65534, who can change all that is in it: chown -R 0 ${at('state')}`,
    ]);
    assert.equal(await statusOf(loader, '/tasks'), 200);
  });

  it('tells of too little room', { skip: ROOT_SKIP }, async () => {
    await mount(at('state'), 'size=3m');
    await mount(at('models'), 'size=64m');
    const loader = await start();
    assert.deepEqual(warnings(loader), [
      `STATE_DIR (${at('state')}) has room for 3 MiB only: make room on its disk, 16 MiB at least`,
      `MODEL_CACHE_DIR (${at('models')}) has room for 64 MiB only: make room on its disk, 512 MiB at least`,
    ]);
    assert.equal(await statusOf(loader, '/tasks'), 200);
  });

  it('goes on where the files in a folder are those of another user, and says so', { skip: ROOT_SKIP }, async () => {
    const earlier = await start();
    await earlier.stop();
    for (const { name } of FOLDERS) await chown(at(name), NOBODY, NOBODY);
    const loader = await start({}, 'second', NOBODY);
    assert.deepEqual(warnings(loader).slice(0, 2), [
      `STATE_DIR (${at('state')}) can't be locked against other Loaders: the Loader's user may not write there; chown -R 65534 ${at('state')}`,
      `MODEL_CACHE_DIR (${at('models')}) can't be locked against other Loaders: the Loader's user may not write there; chown -R 65534 ${at('models')}`,
    ]);
    assert.equal(await statusOf(loader, '/tasks'), 503);
  });

  for (const { variable, name, missing } of FOLDERS) {
    const elsewhere = `or set ${variable} to another path`;
    for (const [what, reason, prepare, uid] of [
      [
        'is a file',
        `it is no folder; move away what stands there, ${elsewhere}`,
        () => writeFile(at(name), 'stays'),
        undefined,
      ],
      [
        'is on a read-only file system',
        `it is read-only; mount it for writing, ${elsewhere}`,
        () => mount(at(name), 'ro'),
        0,
      ],
      [
        'is for another user to write',
        `the Loader's user may not write there; chown -R 65534 `,
        () => mkdir(at(name), { mode: 0o755 }),
        NOBODY,
      ],
    ] as const) {
      it(
        `goes on where ${variable} ${what}, and says what to do`,
        { skip: uid !== undefined && ROOT_SKIP },
        async () => {
          await prepare();
          const other = name === 'state' ? 'models' : 'state';
          if (uid === NOBODY) {
            await mkdir(at(other));
            await chown(at(other), NOBODY, NOBODY);
          }
          const loader = await start({}, 'first', uid);
          const message = warnings(loader)[0] ?? '';
          assert.ok(message.startsWith(`${variable} (${at(name)}) can't be used, so ${missing}`), message);
          assert.ok(message.includes(`: ${reason}`), message);
          assert.equal(await statusOf(loader, '/health'), 200);
          assert.equal(await statusOf(loader, '/tasks'), name === 'state' ? 503 : 200);
          const { reasons } = (await (await fetch(`${loader.url}/ready`)).json()) as {
            reasons: { code: string; detail: string }[];
          };
          assert.deepEqual(
            reasons.map(({ code }) => code),
            ['not_authenticated', 'folder_unusable'],
          );
          assert.equal(reasons[1]?.detail, message);
        },
      );
    }
  }
});

describe('a second Loader', () => {
  for (const { variable, name, lock } of FOLDERS) {
    it(`on the same ${variable} ends, and takes nothing from the first`, async () => {
      await mkdir(at('models/.parts'), { recursive: true });
      const first = await start();
      await writeFile(at('models/.parts/draft.part'), 'of the first');
      await mkdir(at('state/uploads'));
      await writeFile(at('state/uploads/draft.part'), 'of the first');
      await symlink(at(name), at('link'));
      const own = { STATE_DIR: at('own'), MODEL_CACHE_DIR: at('own') };
      const second = start({ ...own, [variable]: at('link'), ...SHORT_WAIT }, 'second');
      await assert.rejects(second, ({ message }: Error) => {
        assert.match(message, /the Loader ended with 1/);
        assert.ok(message.includes(WAITING));
        const told = `could not start: Error: ${variable} (${at('link')}) is in use by another Loader: stop that one, or give each Loader a ${variable} of its own`;
        assert.ok(message.includes(told), message);
        return true;
      });
      assert.equal(await readFile(at('models/.parts/draft.part'), 'utf8'), 'of the first');
      assert.equal(await readFile(at('state/uploads/draft.part'), 'utf8'), 'of the first');
      assert.equal(await statusOf(first, '/tasks'), 200);
      assert.ok(existsSync(at(name, lock)));
    });
  }

  it('begins when the first has ended', async () => {
    const { promise: released, resolve: release } = Promise.withResolvers<undefined>();
    await mkdir(at('state'), { mode: 0o700 });
    const first = await FolderLock.take(at('state'), 'state.lock');
    void released.then(() => first[Symbol.dispose]());
    const starting = start();
    await isWaiting();
    release(undefined);
    const loader = await starting;
    assert.equal(await statusOf(loader, '/tasks'), 200);
    assert.equal(loader.log().split(WAITING).length, 2, 'it says so once');
  });

  it('begins at once when the first was killed', async () => {
    for (let i = 0; i < 2; i++) {
      const loader = await start({}, `start-${i}`);
      assert.ok(!loader.log().includes(WAITING));
      assert.deepEqual(warnings(loader), []);
      await loader.stop('SIGKILL');
    }
  });

  it('that waits ends at SIGTERM', async () => {
    await mkdir(at('models'), { mode: 0o700 });
    using _first = await FolderLock.take(at('models'), 'cache.lock');
    const starting = start();
    const ended = assert.rejects(starting, /the Loader ended with 0.*Stopped/s);
    await isWaiting();
    for (const pid of findProcesses(`STATE_DIR=${at('state')}`)) process.kill(pid, 'SIGTERM');
    await ended;
  });
});
