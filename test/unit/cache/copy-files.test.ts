import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { CopyFiles } from '../../../src/cache/copy-files.ts';
import { DeviceKey } from '../../../src/cache/device-key.ts';
import { createLogger } from '../../../src/log/logger.ts';

let root = '';
let outside = '';
let files: CopyFiles;

function makeFiles(folder: string): CopyFiles {
  const logger = createLogger({ level: 'silent' });
  return new CopyFiles(folder, new DeviceKey(path.join(folder, 'state'), logger), logger);
}

beforeEach(async () => {
  const base = await realpath(await mkdtemp(path.join(tmpdir(), 'loader-path-')));
  root = path.join(base, 'models');
  outside = path.join(base, 'models-outside'); // Its name begins as the root's does.
  await mkdir(root);
  await mkdir(outside);
  files = makeFiles(root);
});

afterEach(async () => {
  await rm(path.dirname(root), { recursive: true, force: true });
});

/** The path of the copy `m` in a folder that is there. */
async function find(folder: string): Promise<string> {
  return (await files.find({ folder, stem: 'm' })).big;
}

/** The same where the folder may have to be made. */
async function make(folder: string): Promise<string> {
  return (await files.make({ folder, stem: 'm' })).big;
}

describe('the folder of a copy', () => {
  it('is made when that is asked for, and found when it is there', async () => {
    assert.equal(await make('a/b/c'), path.join(root, 'a/b/c/m.big'));
    assert.equal(await make('a/b/c'), path.join(root, 'a/b/c/m.big'));
    assert.equal(await find('a/b/c'), path.join(root, 'a/b/c/m.big'));
  });

  it('is not made otherwise', async () => {
    await assert.rejects(find('a/b'), { code: 'ENOENT' });
    assert.deepEqual(await readdir(root), []);
  });

  it('is made with the root, which is looked for only otherwise', async () => {
    await rm(root, { recursive: true });
    await assert.rejects(find('a'), { code: 'ENOENT' });
    assert.equal(await make('a'), path.join(root, 'a/m.big'));
  });

  for (const folder of ['', '..', '../models-outside', 'a/../../models-outside', '/etc', 'a//b', 'a\0b', 'a\\b']) {
    it(`can't be ${JSON.stringify(folder)}, and nothing is made then`, async () => {
      await assert.rejects(make(folder), { code: 'cache_unusable' });
      assert.deepEqual(await readdir(root), []);
      assert.deepEqual(await readdir(outside), []);
    });
  }

  it("can't be a symbolic link out of the root", async () => {
    await symlink(outside, path.join(root, 'link'));
    await assert.rejects(make('link'), { code: 'cache_unusable' });
    await assert.rejects(find('link'), { code: 'cache_unusable' });
  });

  it('is not made behind a symbolic link out of the root', async () => {
    await symlink(outside, path.join(root, 'link'));
    await assert.rejects(make('link/a/b'), { code: 'cache_unusable' });
    assert.deepEqual(await readdir(outside), []);
  });

  it("can't be a symbolic link to the folder above the root, or lie behind one", async () => {
    await symlink('..', path.join(root, 'up'));
    await assert.rejects(find('up'), { code: 'cache_unusable' });
    await assert.rejects(find('up/models'), { code: 'cache_unusable' });
  });

  it('may lie behind a symbolic link that stays inside', async () => {
    await mkdir(path.join(root, 'real'));
    await symlink('real', path.join(root, 'link'));
    assert.equal(await make('link/a'), path.join(root, 'real/a/m.big'));
    assert.deepEqual(await readdir(path.join(root, 'real')), ['a']);
  });

  it('may lie under a root that is itself a symbolic link', async () => {
    const link = path.join(path.dirname(root), 'link-to-root');
    await symlink(root, link);
    files = makeFiles(link);
    assert.equal(await make('a'), path.join(root, 'a/m.big'));
  });

  it("can't lie behind a file or a broken link", async () => {
    await writeFile(path.join(root, 'file'), '');
    await symlink('nowhere', path.join(root, 'broken'));
    await assert.rejects(make('file/a'), { code: 'ENOTDIR' });
    await assert.rejects(make('broken/a'), { code: 'ENOENT' });
    assert.deepEqual((await readdir(root)).sort(), ['broken', 'file']);
  });
});

it("the name of a copy's files is one segment", async () => {
  for (const stem of ['', '..', 'a/b', 'a\0']) {
    await assert.rejects(files.make({ folder: 'a', stem }), { code: 'cache_unusable' });
  }
  assert.deepEqual(await readdir(root), []);
});
