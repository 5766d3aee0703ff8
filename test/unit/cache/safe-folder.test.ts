import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { resolveFolderUnder } from '../../../src/cache/safe-folder.ts';
import { isSafeFolder, isSafeSegment } from '../../../src/resource-name.ts';

const GOOD_SEGMENTS: readonly [string, string][] = [
  ['a plain name', 'model.bin'],
  ['three dots', '...'],
  ['a hidden name', '.hidden'],
  ['two dots within', 'a..b'],
  ['spaces', ' a b '],
  ['percent signs', '%2e%2e'],
  ['a colon, a question mark and quotes', 'a:b?"\'*'],
  ['Unicode', 'модель-模型-🛰️'],
  ['255 bytes', 'a'.repeat(255)],
  ['255 bytes of two each but one', `${'é'.repeat(127)}a`],
];

const BAD_SEGMENTS: readonly [string, string][] = [
  ['nothing', ''],
  ['a dot', '.'],
  ['two dots', '..'],
  ['a slash', 'a/b'],
  ['a slash before it', '/a'],
  ['a slash behind it', 'a/'],
  ['a backslash', 'a\\b'],
  ['backslashes for slashes', '..\\..'],
  ['NUL', 'a\0b'],
  ['a line break', 'a\nb'],
  ['a tab', 'a\tb'],
  ['an escape', 'a\x1bb'],
  ['DEL', 'a\x7fb'],
  ['a control character of C1', 'a\u0085b'],
  ['256 bytes', 'a'.repeat(256)],
  ['256 bytes of two each', 'é'.repeat(128)],
  ['256 bytes of four each', '🛰'.repeat(64)],
  ['a lone high surrogate', 'a\ud800'],
  ['a lone low surrogate', '\udc00a'],
];

describe('a path segment', () => {
  for (const [kind, text] of GOOD_SEGMENTS) {
    it(`may have ${kind}`, () => {
      assert.ok(isSafeSegment(text));
      assert.ok(isSafeFolder(text));
      assert.ok(isSafeFolder(`models/${text}`));
    });
  }
  for (const [kind, text] of BAD_SEGMENTS) {
    it(`may not have ${kind}`, () => {
      assert.ok(!isSafeSegment(text));
      if (text === 'a/b') return;
      assert.ok(!isSafeFolder(text));
      assert.ok(!isSafeFolder(`models/${text}`));
      assert.ok(!isSafeFolder(`${text}/models`));
    });
  }
});

describe('a folder', () => {
  it('may have one to eight segments', () => {
    for (let count = 1; count <= 8; count++) assert.ok(isSafeFolder(Array<string>(count).fill('a').join('/')));
    assert.ok(!isSafeFolder(Array<string>(9).fill('a').join('/')));
  });

  it('may have eight segments of 255 bytes each', () =>
    assert.ok(isSafeFolder(Array<string>(8).fill('a'.repeat(255)).join('/'))));

  for (const folder of ['', '/', '/models', 'models/', 'a//b', 'a/../b', '../models', 'a/./b', 'a/..']) {
    it(`may not be "${folder}"`, () => assert.ok(!isSafeFolder(folder)));
  }
});

describe('resolveFolderUnder', () => {
  let root = '';
  let outside = '';

  beforeEach(async () => {
    const base = await realpath(await mkdtemp(path.join(tmpdir(), 'loader-path-')));
    root = path.join(base, 'models');
    outside = path.join(base, 'models-outside'); // Its name begins as the root's does.
    await mkdir(root);
    await mkdir(outside);
  });

  afterEach(async () => {
    await rm(path.dirname(root), { recursive: true, force: true });
  });

  it('creates the folder when asked to, and finds it when it is there', async () => {
    assert.equal(await resolveFolderUnder(root, 'a/b/c', true), path.join(root, 'a/b/c'));
    assert.equal(await resolveFolderUnder(root, 'a/b/c', true), path.join(root, 'a/b/c'));
    assert.equal(await resolveFolderUnder(root, 'a/b/c', false), path.join(root, 'a/b/c'));
  });

  it('does not create it otherwise', async () => {
    await assert.rejects(resolveFolderUnder(root, 'a/b', false), { code: 'ENOENT' });
    assert.deepEqual(await readdir(root), []);
  });

  for (const folder of ['', '..', '../models-outside', 'a/../../models-outside', '/etc', 'a//b', 'a\0b', 'a\\b']) {
    it(`refuses ${JSON.stringify(folder)}, and creates nothing`, async () => {
      await assert.rejects(resolveFolderUnder(root, folder, true), { code: 'cache_unusable' });
      assert.deepEqual(await readdir(root), []);
      assert.deepEqual(await readdir(outside), []);
    });
  }

  it('refuses a folder that is a symbolic link out of the root', async () => {
    await symlink(outside, path.join(root, 'link'));
    await assert.rejects(resolveFolderUnder(root, 'link', true), { code: 'cache_unusable' });
    await assert.rejects(resolveFolderUnder(root, 'link', false), { code: 'cache_unusable' });
  });

  it('creates nothing behind a symbolic link out of the root', async () => {
    await symlink(outside, path.join(root, 'link'));
    await assert.rejects(resolveFolderUnder(root, 'link/a/b', true), { code: 'cache_unusable' });
    assert.deepEqual(await readdir(outside), []);
  });

  it('refuses a symbolic link to the folder above the root', async () => {
    await symlink('..', path.join(root, 'up'));
    await assert.rejects(resolveFolderUnder(root, 'up', false), { code: 'cache_unusable' });
    await assert.rejects(resolveFolderUnder(root, 'up/models', false), { code: 'cache_unusable' });
  });

  it('follows a symbolic link that stays inside', async () => {
    await mkdir(path.join(root, 'real'));
    await symlink('real', path.join(root, 'link'));
    assert.equal(await resolveFolderUnder(root, 'link/a', true), path.join(root, 'real/a'));
    assert.deepEqual(await readdir(path.join(root, 'real')), ['a']);
  });

  it('takes a root that is itself a symbolic link', async () => {
    const link = path.join(path.dirname(root), 'link-to-root');
    await symlink(root, link);
    assert.equal(await resolveFolderUnder(link, 'a', true), path.join(root, 'a'));
  });

  it('fails where a segment is a file or a broken link', async () => {
    await writeFile(path.join(root, 'file'), '');
    await symlink('nowhere', path.join(root, 'broken'));
    await assert.rejects(resolveFolderUnder(root, 'file/a', true), { code: 'ENOTDIR' });
    await assert.rejects(resolveFolderUnder(root, 'broken/a', true), { code: 'ENOENT' });
    assert.deepEqual((await readdir(root)).sort(), ['broken', 'file']);
  });

  it('fails where the root is absent', async () => {
    await assert.rejects(resolveFolderUnder(path.join(root, 'absent'), 'a', true), { code: 'ENOENT' });
  });
});
