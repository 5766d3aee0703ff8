import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import type { CacheEntry } from '../../../src/cache/cache-entry.ts';
import { CacheFolder } from '../../support/cache-folder.ts';
import { HookedFs, systemError } from '../../../lab/faults/hooked-fs.ts';
import { NEVER } from '../../../src/async/abort.ts';

const hookedFs = new HookedFs();
let folder: CacheFolder;
let warnings: unknown[] = [];

beforeEach(async () => {
  folder = await CacheFolder.create();
  warnings = [];
  mock.method(folder.logger, 'warn', (...parameters: unknown[]) => warnings.push(parameters));
});

afterEach(async () => {
  await using _removal = { [Symbol.asyncDispose]: () => folder.remove() };
  hookedFs.restore();
});

/** `folder/file` of each entry, sorted. */
async function listed(): Promise<string[]> {
  return (await folder.entries()).map((entry) => `${entry.folder}/${entry.file}`).sort();
}

async function write(file: string, content = 'content'): Promise<void> {
  await mkdir(path.dirname(path.join(folder.root, file)), { recursive: true });
  await writeFile(path.join(folder.root, file), content);
}

describe('the entries of the cache', () => {
  it('are none where there is no cache yet', async () => {
    assert.deepEqual(await folder.entries(), []);
    assert.deepEqual(warnings, []);
  });

  it('are the copies, with all that is known of them, without record and digests', async () => {
    await folder.publish({ folder: 'models', name: 'm.bin' }, 'content');
    await utimes(folder.path('m.bin.big'), 1_600_000_000.123, 1_600_000_000.123);
    const expected: CacheEntry = {
      kind: 'copy',
      folder: 'models',
      file: 'm.bin.big',
      name: 'm.bin',
      length: 7,
      loadedAtMs: 1_600_000_000_123,
    };
    assert.deepEqual(await folder.entries(), [expected]);
  });

  it('are what was set aside, too', async () => {
    const part = { folder: 'models', name: 'm' };
    await folder.publish(part, 'first');
    await folder.cache.setAside(part, new Error('x'));
    await folder.publish(part, 'second one');
    const entries = await folder.entries();
    assert.deepEqual(
      entries.map(({ kind, file, name, length }) => ({ kind, file, name, length })).sort((a, b) => a.length - b.length),
      [
        { kind: 'set_aside', file: 'm.big.bad', name: 'm', length: 5 },
        { kind: 'copy', file: 'm.big', name: 'm', length: 10 },
      ],
    );
  });

  it('lie in folders to the depth that resources may have, and no deeper', async () => {
    const deepest = ['1', '2', '3', '4', '5', '6', '7', '8'];
    for (let depth = 1; depth <= 8; depth++) {
      await folder.publish({ folder: deepest.slice(0, depth).join('/'), name: 'm' }, 'content');
    }
    await write('1/2/3/4/5/6/7/8/9/m.big');
    await write('m.big');
    const expected = deepest.map((_, index) => `${deepest.slice(0, index + 1).join('/')}/m.big`);
    assert.deepEqual(await listed(), expected.sort());
  });

  it('may have any name that a resource may have', async () => {
    const names = ['ä ö\u{1F6F0}', '-', '...', 'a.big', 'a.big.bad', 'a.big.json', 'a.big.dsse', '"quoted"', '%2e'];
    for (const name of names) await folder.publish({ folder: 'ü/\u{1F6F0}', name }, 'content');
    const entries = await folder.entries();
    assert.deepEqual(entries.map(({ name }) => name).sort(), names.sort());
    assert.ok(entries.every((entry) => entry.kind === 'copy' && entry.folder === 'ü/\u{1F6F0}'));
  });

  for (const name of ['n'.repeat(246), 'n'.repeat(247), 'n'.repeat(255), '\u{1F6F0}'.repeat(63), '"'.repeat(255)]) {
    it(`have the name of the resource, however long: ${Buffer.byteLength(name)} bytes`, async () => {
      await folder.publish({ folder: 'models', name }, 'content');
      const [entry, ...others] = await folder.entries();
      assert.equal(entry?.name, name);
      assert.deepEqual(others, []);
      assert.equal(await folder.cache.removeUnlessHeld(entry), 'removed');
      assert.deepEqual(await folder.names(), []);
    });
  }

  it('have the name of a resource that looks like a digest', async () => {
    const name = `sha256-${'ab'.repeat(32)}`;
    await folder.publish({ folder: 'models', name }, 'content');
    assert.equal((await folder.entries())[0]?.name, name);
    assert.ok(!(await folder.has(`${name}.big`)));
  });

  for (const [what, change] of [
    ['there is no record', undefined],
    ['the record has none', { name: undefined }],
    ['the record has that of another', { name: 'm' }],
    ['the record has something else', { name: 7 }],
    ['the record is damaged', 'damaged'],
  ] as const) {
    it(`have no name where the file has a digest for one and ${what}`, async () => {
      await folder.publish({ folder: 'models', name: 'n'.repeat(255) }, 'content');
      const [entry] = await folder.entries();
      const record = folder.path(`${entry?.file ?? ''}.dsse`);
      if (change === undefined) await rm(record);
      else if (change === 'damaged') await writeFile(record, 'x');
      else await changeStatement(record, change);
      const [changed, ...others] = await folder.entries();
      assert.deepEqual({ ...changed }, { ...entry, name: undefined });
      assert.deepEqual(others, []);
    });
  }

  it('have no name where the file has a digest for one and the record can not be read', async () => {
    await folder.publish({ folder: 'models', name: 'n'.repeat(255) }, 'content');
    const [entry] = await folder.entries();
    const record = folder.path(`${entry?.file ?? ''}.dsse`);
    await rm(record);
    await mkdir(record);
    assert.deepEqual(await folder.entries(), [{ ...entry, name: undefined }]);
    assert.deepEqual(warnings, []);
  });

  it('have no name where a file that was set aside has a digest for one', async () => {
    const part = { folder: 'models', name: 'n'.repeat(255) };
    await folder.publish(part, 'content');
    await folder.cache.setAside(part, new Error('x'));
    const [entry] = await folder.entries();
    assert.ok(entry !== undefined);
    assert.deepEqual([entry.kind, entry.name], ['set_aside', undefined]);
    assert.equal(await folder.cache.removeUnlessHeld(entry), 'removed');
  });

  it('are no files of other programs and no names that resources can not have', async () => {
    const names = ['m', 'm.txt', 'big', '.big', '.big.bad', '..big', 'm.big.dsse', 'm.bigger', 'm.bad', 'a\\b.big'];
    for (const name of [...names, `${'n'.repeat(250)}.big`, 'a\nb.big']) await write(`models/${name}`);
    await write('a\\b/m.big');
    assert.deepEqual(await listed(), []);
    await write('models/m.big');
    assert.deepEqual(await listed(), ['models/m.big']);
  });

  it('are files: folders that are named like copies are looked into', async () => {
    await mkdir(folder.path('m.big.bad/inner.big'), { recursive: true });
    await write('models/n.big/inner.big');
    await write('models/m.big.bad/inner.big/x.big.bad');
    execFileSync('mkfifo', [folder.path('fifo.big')]);
    assert.deepEqual(await listed(), ['models/m.big.bad/inner.big/x.big.bad', 'models/n.big/inner.big']);
  });

  it('are not behind symbolic links', async () => {
    await write('models/m.big');
    await writeFile(path.join(folder.base, 'outside.big'), 'content');
    await symlink(folder.base, path.join(folder.root, 'linked'));
    await symlink(path.join(folder.root, 'models'), path.join(folder.root, 'models', 'again'));
    await symlink(path.join(folder.base, 'outside.big'), folder.path('linked.big'));
    await symlink(folder.path('m.big'), folder.path('inside.big'));
    assert.deepEqual(await listed(), ['models/m.big']);
  });

  it('are no unfinished files, but the copies of a resource folder that has the name of theirs', async () => {
    const file = await folder.cache.createDraft();
    await folder.publish({ folder: '.parts', name: 'm' }, 'content');
    assert.deepEqual(await listed(), ['.parts/m.big']);
    await file.discard();
    await file.close();
  });

  it('are all but those of a folder that can not be read, of which the log tells', async () => {
    await write('a/m.big');
    await write('b/m.big');
    await write('b/inner/m.big');
    await write('c/m.big');
    hookedFs.before('readdir', path.join(folder.root, 'b'), () => {
      throw systemError('EACCES');
    });
    assert.deepEqual(await listed(), ['a/m.big', 'c/m.big']);
    assert.equal(warnings.length, 1);
  });

  it('are all but a file that can not be looked at, of which the log tells', async () => {
    await write('models/a.big');
    await write('models/b.big');
    hookedFs.before('lstat', folder.path('a.big'), () => {
      throw systemError('EIO');
    });
    assert.deepEqual(await listed(), ['models/b.big']);
    assert.equal(warnings.length, 1);
  });

  it('may vanish meanwhile, and so may their folders', async () => {
    for (const file of ['a/m.big', 'a/n.big', 'b/m.big', 'c/m.big']) await write(file);
    hookedFs.before('lstat', /\/a\/[mn]\.big$/, () => rm(path.join(folder.root, 'a/n.big'), { force: true }));
    hookedFs.before('readdir', path.join(folder.root, 'b'), (folderPath) => rm(folderPath, { recursive: true }));
    assert.deepEqual(await listed(), ['a/m.big', 'c/m.big']);
    assert.deepEqual(warnings, []);
  });

  it('are listed no longer than they are wanted', async () => {
    for (const file of ['a/m.big', 'a/n.big', 'a/o.big']) await write(file);
    const abort = new AbortController();
    const reason = new Error('no longer wanted');
    const seen: CacheEntry[] = [];
    await assert.rejects(async () => {
      for await (const entry of folder.cache.list(abort.signal)) {
        seen.push(entry);
        abort.abort(reason);
      }
    }, reason);
    assert.equal(seen.length, 1);
    await assert.rejects(Array.fromAsync(folder.cache.list(abort.signal)), reason);
    for await (const entry of folder.cache.list(NEVER)) {
      assert.equal(entry.folder, 'a');
      break;
    }
  });
});

/** Changes the predicate in the record of a copy. Its signature is not right any more. */
async function changeStatement(filePath: string, change: object): Promise<void> {
  const envelope = JSON.parse(await readFile(filePath, 'utf8')) as { payload: string };
  const statement = JSON.parse(Buffer.from(envelope.payload, 'base64').toString()) as { predicate: object };
  const payload = JSON.stringify({ ...statement, predicate: { ...statement.predicate, ...change } });
  await writeFile(filePath, JSON.stringify({ ...envelope, payload: Buffer.from(payload).toString('base64') }));
}
