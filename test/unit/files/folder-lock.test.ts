import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { FolderBusyError, FolderLock } from '../../../src/files/folder-lock.ts';

const ROOT_SKIP = process.getuid?.() === 0 ? false : 'it needs root, to mount a file system';
const NAME = 'x.lock';

let folder = '';
let file = '';

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-lock-'));
  file = path.join(folder, NAME);
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** A process that holds the lock until it is killed. */
async function startHolder(): Promise<AsyncDisposable> {
  const source = path.resolve(import.meta.dirname, '../../../src/files/folder-lock.ts');
  const script = `
    const { FolderLock } = await import(${JSON.stringify(source)});
    globalThis.lock = await FolderLock.take(${JSON.stringify(folder)}, ${JSON.stringify(NAME)});
    console.log('locked');
    setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return {
    [Symbol.asyncDispose]: async () => {
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    },
  };
}

describe('the lock of a folder', () => {
  it('is an empty file for its owner alone, and nothing else, whatever the umask is', async () => {
    const umask = process.umask(0);
    using _lock = await FolderLock.take(folder, NAME);
    process.umask(umask);
    assert.deepEqual(await readdir(folder), [NAME]);
    const { mode, size } = await stat(file);
    assert.deepEqual([mode & 0o777, size], [0o600, 0]);
  });

  it('has one holder, until its disposal', async () => {
    const lock = await FolderLock.take(folder, NAME);
    await assert.rejects(FolderLock.take(folder, NAME), FolderBusyError);
    await assert.rejects(FolderLock.take(folder, NAME), FolderBusyError);
    lock[Symbol.dispose]();
    lock[Symbol.dispose]();
    using _next = await FolderLock.take(folder, NAME);
  });

  it('is that of another process, by whatever path, until that one is killed', async () => {
    const link = `${folder}-link`;
    await symlink(folder, link);
    try {
      {
        await using _holder = await startHolder();
        await assert.rejects(FolderLock.take(folder, NAME), FolderBusyError);
        await assert.rejects(FolderLock.take(link, NAME), FolderBusyError);
        using _other = await FolderLock.take(folder, 'y.lock');
      }
      using _lock = await FolderLock.take(link, NAME);
    } finally {
      await rm(link);
    }
  });

  it('is not given up to one who finds other bytes in the file', async () => {
    await using _holder = await startHolder();
    await writeFile(file, 'no database'.repeat(1000));
    await assert.rejects(FolderLock.take(folder, NAME), FolderBusyError);
  });

  it('is taken where other bytes stand in the file', async () => {
    await writeFile(file, 'no database'.repeat(1000));
    using _lock = await FolderLock.take(folder, NAME);
    assert.equal((await stat(file)).size, 0);
    await assert.rejects(FolderLock.take(folder, NAME), FolderBusyError);
  });

  it('is not taken at what is no regular file, and waits for none', async () => {
    await mkdir(file);
    await assert.rejects(FolderLock.take(folder, NAME), /no regular file/);
    await rm(file, { recursive: true });
    execFileSync('mkfifo', [file]);
    await assert.rejects(FolderLock.take(folder, NAME), /no regular file/);
    await rm(file);
    const outside = path.join(folder, 'outside');
    await writeFile(outside, 'stays');
    await symlink(outside, file);
    await assert.rejects(FolderLock.take(folder, NAME), /no regular file/);
    assert.equal(await readFile(outside, 'utf8'), 'stays');
  });

  it('is not taken where there is no folder, or the file system is read-only', { skip: ROOT_SKIP }, async () => {
    await assert.rejects(FolderLock.take(path.join(folder, 'none'), NAME), { code: 'ENOENT' });
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', folder]);
    try {
      await chmod(folder, 0o755);
      (await FolderLock.take(folder, NAME))[Symbol.dispose]();
      execFileSync('mount', ['-o', 'remount,ro', folder]);
      await assert.rejects(FolderLock.take(folder, NAME), { code: 'EROFS' });
      await assert.rejects(FolderLock.take(folder, 'new.lock'), { code: 'EROFS' });
    } finally {
      execFileSync('umount', ['-l', folder]);
    }
  });
});
