import assert from 'node:assert/strict';
import { mkdir, readFile, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { CopyRecord } from '../../../src/cache/copy-record.ts';
import type { OpenCopy } from '../../../src/cache/copy-files.ts';
import { CacheFolder, digestsOf } from '../../support/cache-folder.ts';
import { HookedFs, systemError } from '../../../lab/faults/hooked-fs.ts';

const PART = { folder: 'models', name: 'm' };
const REASON = new Error('a reason');

const hookedFs = new HookedFs();
let folder: CacheFolder;

beforeEach(async () => {
  folder = await CacheFolder.create();
});

afterEach(async () => {
  await using _removal = { [Symbol.asyncDispose]: () => folder.remove() };
  hookedFs.restore();
});

/** `version 1` and so on, with a record that tells. */
async function publishVersion(version: number): Promise<void> {
  await folder.publish(PART, `version ${version}`, recordOf(version));
}

/** Publishes it from the next call of the cache on. */
async function readyToPublish(version: number): Promise<() => Promise<void>> {
  const file = await folder.cache.createDraft();
  await file.write(Buffer.from(`version ${version}`), 0);
  return async () => {
    await folder.cache.publish(PART, file, recordOf(version));
    await file.close();
  };
}

function recordOf(version: number): CopyRecord {
  const content = `version ${version}`;
  const smallSha256 = String(version).padStart(64, '0');
  return { bigLength: content.length, smallSha256, chunks: digestsOf(Buffer.from(content)) };
}

async function read(copy: OpenCopy | undefined): Promise<{ text: string; record: CopyRecord | undefined }> {
  assert.ok(copy !== undefined, 'there is no copy');
  const { buffer } = await copy.handle.read(Buffer.alloc(copy.length), 0, copy.length, 0);
  return { text: buffer.toString(), record: copy.record };
}

async function readCopy(): Promise<{ text: string; record: CopyRecord | undefined }> {
  const copy = await folder.cache.open(PART);
  try {
    return await read(copy);
  } finally {
    await copy?.handle.close();
  }
}

async function openCopy(): Promise<OpenCopy> {
  const copy = await folder.cache.open(PART);
  assert.ok(copy !== undefined);
  return copy;
}

/** Does `work` before the record is read for the first time, when the file is open already. */
function beforeTheRecord(work: () => Promise<void>): void {
  let isDone = false;
  hookedFs.before('open', /\.big\.dsse$/, async () => {
    if (isDone) return;
    isDone = true;
    await work();
  });
}

describe('a copy that is replaced while it is opened', () => {
  it('is opened with its own record, though the other has its length', async () => {
    await publishVersion(1);
    beforeTheRecord(() => publishVersion(2));
    assert.deepEqual(await readCopy(), { text: 'version 2', record: recordOf(2) });
  });

  it('is not taken for a bad one when the other has another length', async () => {
    await publishVersion(1);
    beforeTheRecord(() => publishVersion(10));
    assert.equal((await readCopy()).text, 'version 10');
    assert.ok(!(await folder.has('m.big.bad')));
  });

  it('is no copy when it is removed meanwhile', async () => {
    await publishVersion(1);
    beforeTheRecord(() => folder.cache.remove(PART));
    assert.equal(await folder.cache.open(PART), undefined);
  });

  it('is no copy when it is replaced each time, and none of them is set aside or stays open', async () => {
    await publishVersion(1);
    let replaced = 0;
    hookedFs.before('open', /\.big\.dsse$/, async () => {
      if (++replaced > 50) return;
      await writeFile(folder.path('next'), 'version 2, somewhat longer');
      await rename(folder.path('next'), folder.path('m.big'));
    });
    assert.equal(await folder.cache.open(PART), undefined);
    assert.ok(replaced > 1 && replaced <= 10, `it was opened ${replaced} times`);
    assert.deepEqual(await folder.names(), ['m.big', 'm.big.dsse']);
    await folder.closed();
  });

  it('is never paired with the record of another, however the two interleave', { timeout: 60_000 }, async () => {
    await publishVersion(100);
    const state = { isPublishing: true };
    const publishing = (async () => {
      for (let version = 101; version < 250; version++) await (await readyToPublish(version))();
    })().finally(() => (state.isPublishing = false));
    let opened = 0;
    while (state.isPublishing) {
      const copy = await folder.cache.open(PART);
      if (copy === undefined) continue;
      const { text, record } = await read(copy);
      await copy.handle.close();
      assert.equal(Number(record?.smallSha256), Number(text.replace('version ', '')));
      opened++;
    }
    await publishing;
    assert.ok(opened > 0);
    assert.ok(!(await folder.has('m.big.bad')));
  });
});

describe('a bad copy that is noticed late', () => {
  it('is set aside while it is the present one', async () => {
    await publishVersion(1);
    const copy = await openCopy();
    await folder.cache.setAside(PART, REASON, copy);
    await copy.handle.close();
    assert.equal(await readFile(folder.path('m.big.bad'), 'utf8'), 'version 1');
    assert.ok(!(await folder.has('m.big')));
  });

  it('leaves its successor where it is', async () => {
    await publishVersion(1);
    const copy = await openCopy();
    await publishVersion(2);
    await folder.cache.setAside(PART, REASON, copy);
    await copy.handle.close();
    assert.equal((await readCopy()).text, 'version 2');
    assert.ok(!(await folder.has('m.big.bad')));
  });

  it('leaves a successor whose publication has begun', async () => {
    await publishVersion(1);
    const copy = await openCopy();
    const publishing = (await readyToPublish(2))();
    await folder.cache.setAside(PART, REASON, copy);
    await copy.handle.close();
    await publishing;
    assert.equal((await readCopy()).text, 'version 2');
    assert.ok(!(await folder.has('m.big.bad')));
  });

  it('is told by its inode when a load that found it bad is overtaken by its successor', async () => {
    await publishVersion(1);
    await writeFile(folder.path('m.big'), 'version 1 and more');
    // The first look is for the inode, the second one sees that it is still there, the third one is in turn.
    let looks = 0;
    hookedFs.before('lstat', folder.path('m.big'), async (filePath) => {
      if (++looks !== 3) return;
      await rm(filePath);
      await writeFile(filePath, 'version 2');
      await rm(folder.path('m.big.dsse'));
    });
    assert.equal(await folder.cache.open(PART), undefined);
    assert.equal(looks, 3);
    assert.equal(await readFile(folder.path('m.big'), 'utf8'), 'version 2');
  });

  it('loses its digests and its record', async () => {
    await folder.publish(PART, 'content');
    await folder.cache.setAside(PART, REASON);
    assert.deepEqual(await folder.names(), ['m.big.bad']);
  });
});

describe('a copy that is held', () => {
  it('is not removed until it is released', async () => {
    await folder.publish(PART, 'content');
    const entry = await folder.entry('m.big');
    {
      using _hold = folder.cache.hold(PART);
      assert.equal(await folder.cache.removeUnlessHeld(entry), 'held');
      assert.equal((await readCopy()).text, 'content');
    }
    assert.equal(await folder.cache.removeUnlessHeld(entry), 'removed');
    assert.deepEqual(await folder.names(), []);
  });

  it('is held until the last of its readers has released it, each of whom counts once', async () => {
    await folder.publish(PART, 'content');
    const entry = await folder.entry('m.big');
    const [first, second] = [folder.cache.hold(PART), folder.cache.hold(PART)];
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    assert.equal(await folder.cache.removeUnlessHeld(entry), 'held');
    second[Symbol.dispose]();
    const third = folder.cache.hold(PART);
    second[Symbol.dispose]();
    assert.equal(await folder.cache.removeUnlessHeld(entry), 'held');
    third[Symbol.dispose]();
    assert.equal(await folder.cache.removeUnlessHeld(entry), 'removed');
  });

  it('may have a name that is stored by its digest', async () => {
    const part = { folder: 'models', name: 'n'.repeat(255) };
    await folder.publish(part, 'content');
    const [entry] = await folder.entries();
    assert.ok(entry !== undefined);
    {
      using _hold = folder.cache.hold(part);
      assert.equal(await folder.cache.removeUnlessHeld(entry), 'held');
    }
    assert.equal(await folder.cache.removeUnlessHeld(entry), 'removed');
    assert.deepEqual(await folder.names(), []);
  });

  it('is another than one of its name elsewhere, or of another name', async () => {
    await folder.publish(PART, 'content');
    const entry = await folder.entry('m.big');
    folder.cache.hold({ folder: 'other', name: 'm' });
    folder.cache.hold({ folder: 'models', name: 'm.big' });
    assert.equal(await folder.cache.removeUnlessHeld(entry), 'removed');
  });

  it('stays when it is held after its removal was asked for, and before that begins', async () => {
    await folder.publish(PART, 'content');
    const entry = await folder.entry('m.big');
    const removing = folder.cache.removeUnlessHeld(entry);
    folder.cache.hold(PART);
    assert.equal(await removing, 'held');
  });

  it('stays when it is held at the last moment', async () => {
    await folder.publish(PART, 'content');
    const entry = await folder.entry('m.big');
    hookedFs.before('lstat', folder.path('m.big'), () => {
      folder.cache.hold(PART);
    });
    assert.equal(await folder.cache.removeUnlessHeld(entry), 'held');
  });

  it('does not keep the one that was set aside before it', async () => {
    await folder.publish(PART, 'first');
    await folder.cache.setAside(PART, REASON);
    await folder.publish(PART, 'second');
    folder.cache.hold(PART);
    assert.equal(await folder.cache.removeUnlessHeld(await folder.entry('m.big.bad')), 'removed');
    assert.deepEqual(await folder.names(), ['m.big', 'm.big.dsse']);
  });
});

describe('removing an entry', () => {
  it('leaves one that was loaded since it was listed', async () => {
    await folder.publish(PART, 'content');
    await utimes(folder.path('m.big'), 1000, 1000);
    const entry = await folder.entry('m.big');
    const copy = await openCopy();
    await folder.cache.markLoaded(copy);
    await copy.handle.close();
    assert.equal(await folder.cache.removeUnlessHeld(entry), 'held');
    assert.equal(await folder.cache.removeUnlessHeld(await folder.entry('m.big')), 'removed');
  });

  it('leaves its successor', async () => {
    await folder.publish(PART, 'content');
    await utimes(folder.path('m.big'), 1000, 1000);
    const entry = await folder.entry('m.big');
    const publishing = (await readyToPublish(2))();
    assert.equal(await folder.cache.removeUnlessHeld(entry), 'held');
    await publishing;
    assert.equal((await readCopy()).text, 'version 2');
  });

  it('tells when it is gone, with its folder or without', async () => {
    await folder.publish(PART, 'content');
    const entry = await folder.entry('m.big');
    await rm(folder.path('m.big'));
    assert.equal(await folder.cache.removeUnlessHeld(entry), 'absent');
    assert.equal(await folder.cache.removeUnlessHeld({ ...entry, kind: 'set_aside', file: 'm.big.bad' }), 'absent');
    await mkdir(folder.path('m.big'));
    assert.equal(await folder.cache.removeUnlessHeld(entry), 'absent');
    await rm(folder.path(''), { recursive: true });
    assert.equal(await folder.cache.removeUnlessHeld(entry), 'absent');
    await writeFile(path.join(folder.root, 'models'), 'a file');
    assert.equal(await folder.cache.removeUnlessHeld(entry), 'absent');
  });

  it('fails with cache_unusable where the disk does not let it', async () => {
    await folder.publish(PART, 'content');
    const entry = await folder.entry('m.big');
    hookedFs.before('unlink', folder.path('m.big'), () => {
      throw systemError('EACCES');
    });
    await assert.rejects(folder.cache.removeUnlessHeld(entry), {
      name: 'LoaderError',
      code: 'cache_unusable',
      message: 'The cache could not be written (EACCES).',
    });
  });

  it('never leaves the cache', async () => {
    await folder.publish(PART, 'content');
    const entry = await folder.entry('m.big');
    await folder.publish({ folder: 'outside', name: 'm' }, 'content');
    await rm(folder.path(''), { recursive: true });
    await symlink(folder.base, path.join(folder.root, 'models'));
    await writeFile(path.join(folder.base, 'm.big'), 'not ours');
    await assert.rejects(folder.cache.removeUnlessHeld(entry), { code: 'cache_unusable' });
    for (const file of ['../m.big', 'm.txt', '..', 'm.big.dsse', '']) {
      await assert.rejects(folder.cache.removeUnlessHeld({ ...entry, folder: 'outside', file }), {
        code: 'cache_unusable',
      });
    }
    assert.equal(await readFile(path.join(folder.base, 'm.big'), 'utf8'), 'not ours');
  });
});

describe('the time at which a copy was last loaded', () => {
  async function loadedAtAfterMark(setMs: number): Promise<number> {
    await utimes(folder.path('m.big'), setMs / 1000, setMs / 1000);
    const copy = await openCopy();
    await folder.cache.markLoaded(copy);
    await copy.handle.close();
    return (await folder.entry('m.big')).loadedAtMs;
  }

  it('is that of its publication at first', async () => {
    const before = Date.now() - 1000;
    await folder.publish(PART, 'content');
    const { loadedAtMs } = await folder.entry('m.big');
    assert.ok(loadedAtMs >= before && loadedAtMs <= Date.now() + 1000);
  });

  it('is set by a load', async () => {
    await folder.publish(PART, 'content');
    const before = Date.now();
    const loadedAtMs = await loadedAtAfterMark(Date.UTC(2020, 1));
    assert.ok(loadedAtMs >= before - 1 && loadedAtMs <= Date.now());
  });

  it('is set by a load a minute after the last one, and not before', async () => {
    await folder.publish(PART, 'content');
    const [recent, old] = [Date.now() - 50_000, Date.now() - 61_000];
    assert.equal(await loadedAtAfterMark(recent), recent);
    assert.ok((await loadedAtAfterMark(old)) > recent);
  });

  it('never goes back with the clock', async () => {
    await folder.publish(PART, 'content');
    const future = Date.now() + 86_400_000;
    assert.equal(await loadedAtAfterMark(future), future);
  });

  it('is none of the load’s worries when it can not be set', async () => {
    await folder.publish(PART, 'content');
    const copy = await openCopy();
    await copy.handle.close();
    await folder.cache.markLoaded(copy);
  });
});
