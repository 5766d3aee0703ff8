import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { makeFolder } from '../../../src/files/folders.ts';

let root = '';

beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), 'loader-folder-'));
});

afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

async function isFolder(folder: string): Promise<boolean> {
  return (await stat(folder)).isDirectory();
}

describe('making a folder', () => {
  it('makes those above it too', async () => {
    const folder = path.join(root, 'a/b/c/d');
    await makeFolder(folder);
    assert.ok(await isFolder(folder));
  });

  it("makes them for the Loader's own user only, whatever the umask is", async () => {
    const umask = process.umask(0);
    try {
      await makeFolder(path.join(root, 'a/b'));
    } finally {
      process.umask(umask);
    }
    for (const folder of ['a', 'a/b']) assert.equal((await stat(path.join(root, folder))).mode & 0o777, 0o700);
  });

  it('leaves the mode of one that is there', async () => {
    await mkdir(path.join(root, 'a'), { mode: 0o750 });
    await makeFolder(path.join(root, 'a'));
    assert.equal((await stat(path.join(root, 'a'))).mode & 0o777, 0o750);
  });

  it('leaves one that is there as it is', async () => {
    const folder = path.join(root, 'a');
    await mkdir(folder);
    await writeFile(path.join(folder, 'file'), '');
    await makeFolder(folder);
    await makeFolder(root);
    await makeFolder('/');
    assert.deepEqual(await readdir(folder), ['file']);
  });

  it('takes a link to a folder for one', async () => {
    await mkdir(path.join(root, 'real'));
    await symlink(path.join(root, 'real'), path.join(root, 'link'));
    await makeFolder(path.join(root, 'link/a/b'));
    assert.ok(await isFolder(path.join(root, 'real/a/b')));
  });

  it('takes a relative path', async () => {
    const folder = path.join(path.relative(process.cwd(), root), 'a/b');
    await makeFolder(folder);
    await makeFolder('.');
    assert.ok(await isFolder(path.join(root, 'a/b')));
  });

  it('may be done by many at once', async () => {
    const folder = path.join(root, 'a/b/c');
    await Promise.all(Array.from({ length: 20 }, () => makeFolder(folder)));
    assert.ok(await isFolder(folder));
  });

  it('fails below a file, which stays', async () => {
    await writeFile(path.join(root, 'file'), 'content');
    await assert.rejects(makeFolder(path.join(root, 'file/a/b')), { code: 'ENOTDIR' });
    assert.deepEqual(await readdir(root), ['file']);
  });

  it('fails below a link to nowhere', async () => {
    await symlink(path.join(root, 'nowhere'), path.join(root, 'link'));
    await assert.rejects(makeFolder(path.join(root, 'link/a')), { code: 'ENOENT' });
  });

  for (const folder of ['/proc/x', '/proc/x/y/z']) {
    it(`fails at once where nothing can be made: ${folder}`, async () => {
      const start = performance.now();
      await assert.rejects(makeFolder(folder), { code: 'ENOENT' });
      assert.ok(performance.now() - start < 1_000);
    });
  }
});
