import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { readSmallFile, UnfitFileError } from '../../../src/files/small-file.ts';

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
