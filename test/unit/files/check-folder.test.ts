import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmod, chown, mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { checkFolder } from '../../../src/files/check-folder.ts';

const ROOT_SKIP = process.getuid?.() === 0 ? false : 'it needs root, to mount file systems and to change owners';
const NOBODY = 65_534;

let root = '';
let folder = '';

beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), 'loader-check-'));
  folder = path.join(root, 'a/folder');
});

afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

async function mounted(options: string, check: () => Promise<void>): Promise<void> {
  await checkFolder(folder);
  execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', folder]);
  try {
    await check();
  } finally {
    execFileSync('umount', ['-l', folder]);
  }
}

describe('the check of a folder', () => {
  it('makes one that is not there, for its owner alone', async () => {
    const { foreignOwner, isOpenToOthers, mode, freeBytes } = await checkFolder(folder);
    assert.deepEqual([foreignOwner, isOpenToOthers, mode], [undefined, false, 0o700]);
    assert.ok(freeBytes > 1024 * 1024);
    assert.ok((await stat(folder)).isDirectory());
  });

  it('finds out who else may write there', async () => {
    await checkFolder(folder);
    for (const [mode, isOpenToOthers] of [
      [0o755, false],
      [0o775, true],
      [0o702, true],
      [0o1777, true],
    ] as const) {
      await chmod(folder, mode);
      const facts = await checkFolder(folder);
      assert.deepEqual([facts.mode, facts.isOpenToOthers], [mode, isOpenToOthers]);
    }
  });

  it('finds another owner', { skip: ROOT_SKIP }, async () => {
    await checkFolder(folder);
    await chown(folder, NOBODY, NOBODY);
    assert.equal((await checkFolder(folder)).foreignOwner, NOBODY);
  });

  it('follows a link', async () => {
    await checkFolder(folder);
    await chmod(folder, 0o777);
    await symlink(folder, path.join(root, 'link'));
    assert.equal((await checkFolder(path.join(root, 'link'))).mode, 0o777);
  });

  it('takes no file for a folder, nor a link to a file or to nowhere', async () => {
    const file = path.join(root, 'file');
    await writeFile(file, 'stays');
    await symlink(file, path.join(root, 'link'));
    await symlink(path.join(root, 'nowhere'), path.join(root, 'dangling'));
    await assert.rejects(checkFolder(file), { code: 'ENOTDIR' });
    await assert.rejects(checkFolder(path.join(file, 'below')), { code: 'ENOTDIR' });
    await assert.rejects(checkFolder(path.join(root, 'link')), { code: 'ENOTDIR' });
    await assert.rejects(checkFolder(path.join(root, 'dangling')), { code: 'ENOENT' });
    await assert.rejects(checkFolder('/proc/loader/state'), { code: 'ENOENT' });
  });

  it('tells how much room is left', { skip: ROOT_SKIP }, async () => {
    await mounted('size=1m', async () => {
      assert.equal((await checkFolder(folder)).freeBytes, 1024 * 1024);
      await writeFile(path.join(folder, 'filler'), Buffer.alloc(1024 * 1024));
      assert.equal((await checkFolder(folder)).freeBytes, 0);
    });
  });

  it('counts no room where no further file can be made', { skip: ROOT_SKIP }, async () => {
    await mounted('size=1m,nr_inodes=2', async () => {
      assert.equal((await checkFolder(folder)).freeBytes, 1024 * 1024);
      await writeFile(path.join(folder, 'last'), '');
      assert.equal((await checkFolder(folder)).freeBytes, 0);
    });
  });

  it('fails on a read-only file system', { skip: ROOT_SKIP }, async () => {
    await mounted('ro', async () => {
      await assert.rejects(checkFolder(folder), { code: 'EROFS' });
    });
  });
});
