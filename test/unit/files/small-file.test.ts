import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { readSmallFile, UnfitFileError, writeSmallFile } from '../../../src/files/small-file.ts';

let folder = '';
let file = '';

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-small-'));
  file = path.join(folder, 'file');
});

afterEach(async () => {
  const open = await Promise.all(
    (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
  );
  assert.deepEqual(
    open.filter((target) => target.startsWith(folder)),
    [],
    'a file is still open',
  );
  await rm(folder, { recursive: true, force: true });
});

describe('a small file', () => {
  it('is read as text, up to the limit', async () => {
    await writeFile(file, 'äöü');
    assert.equal(await readSmallFile(file, 6), 'äöü');
    await assert.rejects(readSmallFile(file, 5), UnfitFileError);
  });

  it('may be empty', async () => {
    await writeFile(file, '');
    assert.equal(await readSmallFile(file, 0), '');
  });

  it('is undefined when it is not there', async () => {
    assert.equal(await readSmallFile(file, 100), undefined);
  });

  it('is none when it is a folder or a FIFO, which is not waited for', { timeout: 5000 }, async () => {
    await mkdir(file);
    await assert.rejects(readSmallFile(file, 100_000), UnfitFileError);
    const fifo = path.join(folder, 'fifo');
    execFileSync('mkfifo', [fifo]);
    await assert.rejects(readSmallFile(fifo, 100), UnfitFileError);
  });

  it('is not read through a symbolic link', async () => {
    await writeFile(file, 'content');
    await symlink(file, path.join(folder, 'link'));
    await assert.rejects(readSmallFile(path.join(folder, 'link'), 100), { code: 'ELOOP' });
  });
});

describe('a small file that is written', () => {
  for (const mode of ['durable', 'fast'] as const) {
    it(`is ${mode}, takes the place of the earlier one, and leaves nothing beside it`, async () => {
      await writeSmallFile(file, 'earlier', mode);
      await writeSmallFile(file, 'later', mode);
      assert.equal(await readFile(file, 'utf8'), 'later');
      assert.deepEqual(await readdir(folder), ['file']);
    });
  }

  it('makes its folder, and both are for their owner only', async () => {
    const deep = path.join(folder, 'state', 'deep');
    await writeSmallFile(path.join(deep, 'file'), 'content');
    assert.equal((await stat(deep)).mode & 0o777, 0o700);
    assert.equal((await stat(path.join(deep, 'file'))).mode & 0o777, 0o600);
  });

  it('is written over what a process left that was killed in the middle of it', async () => {
    await writeFile(path.join(folder, '.file.part'), 'half of a longer content');
    await writeSmallFile(file, 'whole');
    assert.equal(await readFile(file, 'utf8'), 'whole');
    assert.deepEqual(await readdir(folder), ['file']);
  });

  it('that can not be written leaves what is there, and nothing beside it', async () => {
    await mkdir(file);
    await assert.rejects(writeSmallFile(file, 'content'));
    assert.deepEqual(await readdir(folder), ['file']);
    await assert.rejects(writeSmallFile(path.join(folder, 'x'.repeat(300)), 'content'), { code: 'ENAMETOOLONG' });
  });

  it('fails where its folder can not be made', async () => {
    await writeFile(file, 'a file');
    await assert.rejects(writeSmallFile(path.join(file, 'file'), 'content'), { code: 'ENOTDIR' });
  });
});
