import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { lstat, mkdir, readdir, readFile, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { BigPartCache } from '../../../src/cache/big-part-cache.ts';
import type { CopyRecord } from '../../../src/cache/copy-record.ts';
import { createLogger } from '../../../src/log/logger.ts';
import type { ResourceName } from '../../../src/resource-name.ts';
import { eventually } from '../../../lab/waiting.ts';
import { CacheFolder, digestsOf } from '../../support/cache-folder.ts';

const PART = { folder: 'models', name: 'm.bin' };
const SMALL_SHA256 = 'ab'.repeat(32);
const recordOf = (content: string, smallSha256 = SMALL_SHA256): CopyRecord => ({
  bigLength: content.length,
  smallSha256,
  chunks: digestsOf(Buffer.from(content)),
});
/** Different for each version. */
const digestOf = (version: number) => String(version).padStart(64, '0');

let folder: CacheFolder;
let base = '';
let root = '';
let cache: BigPartCache;

beforeEach(async () => {
  folder = await CacheFolder.create();
  ({ base, root, cache } = folder);
});

afterEach(async () => {
  await folder.remove();
});

const publish = (part: ResourceName, content: string, record?: Partial<CopyRecord>) =>
  folder.publish(part, content, record);

/** What the cache would serve; undefined when there is no copy. */
async function readCopy(part = PART): Promise<{ text: string; record: CopyRecord | undefined } | undefined> {
  const copy = await cache.open(part);
  if (copy === undefined) return undefined;
  try {
    const { buffer, bytesRead } = await copy.handle.read(Buffer.alloc(copy.length), 0, copy.length, 0);
    assert.equal(bytesRead, copy.length);
    return { text: buffer.toString(), record: copy.record };
  } finally {
    await copy.handle.close();
  }
}

const inFolder = (name: string) => path.join(root, 'models', name);
const names = async () => (await readdir(path.join(root, 'models'))).sort();

describe('the copy of a big part', () => {
  it('is absent before it was published, and nothing is created by looking', async () => {
    assert.equal(await readCopy(), undefined);
    assert.deepEqual(await readdir(base), []);
  });

  it('is there with its record once it was published, as the original keeps it', async () => {
    await publish(PART, 'content');
    assert.deepEqual(await readCopy(), { text: 'content', record: recordOf('content') });
    assert.deepEqual(await names(), ['m.bin.big', 'm.bin.big.dsse']);
    assert.equal(await readFile(inFolder('m.bin.big'), 'utf8'), 'content');
    assert.deepEqual(await readdir(path.join(root, '.parts')), []);
  });

  it("can be read by the Loader's own user only, whatever the umask is", async () => {
    const umask = process.umask(0);
    try {
      await publish({ folder: 'a/b', name: 'm' }, 'content');
    } finally {
      process.umask(umask);
    }
    const modes = new Set<string>();
    for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
      const { mode } = await lstat(path.join(entry.parentPath, entry.name));
      modes.add(`${entry.isDirectory() ? 'folder' : 'file'} ${(mode & 0o777).toString(8)}`);
    }
    assert.deepEqual([...modes].sort(), ['file 600', 'folder 700']);
    assert.equal((await lstat(root)).mode & 0o777, 0o700);
  });

  it('takes the place of an earlier one', async () => {
    await publish(PART, 'earlier content');
    await publish(PART, 'later');
    assert.deepEqual(await readCopy(), { text: 'later', record: recordOf('later') });
  });

  it('never stands as an old file beside a new record, though a publication of the same length ends half-way', async () => {
    await publish(PART, 'version 1', { smallSha256: digestOf(1) });
    const file = await cache.createDraft();
    await file.close(); // its sync fails
    await assert.rejects(cache.publish(PART, file, recordOf('version 2', digestOf(2))));
    assert.notEqual((await readCopy())?.record?.smallSha256, digestOf(2));
    await file.discard();
  });

  it('has the record of its own file, however many publish it at once', async () => {
    const publications = Array.from({ length: 20 }, (_, index) =>
      publish(PART, `version ${String(index).padStart(2, '0')}`, { smallSha256: digestOf(index) }),
    );
    await Promise.all(publications);
    const copy = await readCopy();
    assert.equal(Number(copy?.text.slice(-2)), Number(copy?.record?.smallSha256));
  });

  it('may lie in a folder of several segments', async () => {
    const part = { folder: 'a/b/c', name: 'm' };
    await publish(part, 'content');
    assert.equal((await readCopy(part))?.text, 'content');
    assert.equal(await readFile(path.join(root, 'a/b/c/m.big'), 'utf8'), 'content');
  });

  it('belongs to one folder and one name', async () => {
    await publish(PART, 'content');
    assert.equal(await readCopy({ folder: 'models', name: 'm' }), undefined);
    assert.equal(await readCopy({ folder: 'other', name: 'm.bin' }), undefined);
  });

  it('may have been put there by another program, without a record', async () => {
    await mkdir(path.join(root, 'models'), { recursive: true });
    await writeFile(inFolder('m.bin.big'), 'content');
    assert.deepEqual(await readCopy(), { text: 'content', record: undefined });
  });

  for (const [kind, change] of [
    ['no JSON', () => 'rubbish'],
    ['half of one', (text) => text.slice(0, text.length / 2)],
    ['empty', () => ''],
    ['a list', () => '[]'],
    ['null', () => 'null'],
    ['without a signature', (text) => text.replace(/"signatures":\[.*\]/, '"signatures":[]')],
    ['signed otherwise', (text) => text.replace(/"sig":"../, '"sig":"AA')],
    ['of other digests', (text) => withPayload(text, (payload) => payload.replace(/[\da-f]{8}"\]/, '00000000"]'))],
    ['of another length', (text) => withPayload(text, (payload) => payload.replace('"length":7', '"length":8'))],
    ['far too long', (text) => text + ' '.repeat(5_000_000)],
  ] as const satisfies [string, (text: string) => string][]) {
    it(`is set aside when its record is ${kind}`, async () => {
      await publish(PART, 'content');
      const file = inFolder('m.bin.big.dsse');
      const text = await readFile(file, 'utf8');
      const changed = change(text);
      assert.notEqual(changed, text);
      await writeFile(file, changed);
      assert.equal(await readCopy(), undefined);
      assert.deepEqual(await names(), ['m.bin.big.bad']);
    });
  }

  it('is set aside when it has the record of another', async () => {
    await publish(PART, 'content');
    await publish({ folder: 'models', name: 'n' }, 'content');
    await rename(inFolder('n.big.dsse'), inFolder('m.bin.big.dsse'));
    assert.equal(await readCopy(), undefined);
  });

  it('has no record when another device has made it, and gets one of its own', async () => {
    await publish(PART, 'content', { isPair: true });
    await rm(path.join(base, 'state', 'device.key'));
    cache = new BigPartCache(root, path.join(base, 'state'), folder.logger);
    assert.deepEqual(await readCopy(), { text: 'content', record: undefined });
    await eventually(async () => (await readCopy())?.record !== undefined);
    const { chunks } = recordOf('content');
    assert.deepEqual((await readCopy())?.record, { bigLength: 7, smallSha256: undefined, chunks });
  });

  for (const hasDigests of [true, false]) {
    it(`of an earlier version, ${hasDigests ? 'with' : 'without'} digests, is taken over with what is known of it`, async () => {
      const record = { bigLength: 7, smallSha256: SMALL_SHA256, etag: '"e"', isPair: true, madeAtMs: 5 };
      await mkdir(path.join(root, 'models'), { recursive: true });
      await writeFile(inFolder('m.bin.big'), 'content');
      await writeFile(inFolder('m.bin.big.json'), JSON.stringify({ version: 1, ...record }));
      const chunks = digestsOf(Buffer.from('content'), 4 * 1024 * 1024);
      const sums = JSON.stringify({ version: 1, bigLength: 7, ...chunks });
      await writeFile(inFolder('m.bin.big.sums'), hasDigests ? sums : 'damaged');
      const expected = { ...record, chunks: hasDigests ? chunks : undefined };
      assert.deepEqual(await readCopy(), { text: 'content', record: expected });
      await eventually(async () => (await names()).includes('m.bin.big.dsse'));
      await eventually(async () => (await names()).length === 2);
      const made = { ...record, chunks: hasDigests ? chunks : digestsOf(Buffer.from('content')) };
      assert.deepEqual((await readCopy())?.record, made);
    });
  }

  for (const text of ['rubbish', '{"bigLength":7}', '{"bigLength":"7","smallSha256":"x"}']) {
    it(`of an earlier version is set aside when its record is ${text}`, async () => {
      await publish(PART, 'content');
      await rm(inFolder('m.bin.big.dsse'));
      await writeFile(inFolder('m.bin.big.json'), text);
      assert.equal(await readCopy(), undefined);
      assert.deepEqual(await names(), ['m.bin.big.bad']);
    });
  }
});

/** The text of a record with another payload under the same signature. */
function withPayload(text: string, change: (payload: string) => string): string {
  const envelope = JSON.parse(text) as { payload: string };
  const payload = change(Buffer.from(envelope.payload, 'base64').toString());
  return JSON.stringify({ ...envelope, payload: Buffer.from(payload).toString('base64') });
}

describe('a bad copy', () => {
  it('is set aside when it was cut and has no digests', async () => {
    await folder.publishOnly(PART, 'content');
    await truncate(inFolder('m.bin.big'), 3);
    assert.equal(await readCopy(), undefined);
    assert.deepEqual(await names(), ['m.bin.big.bad']);
  });

  it('is set aside when it is longer than it was', async () => {
    await publish(PART, 'content');
    await writeFile(inFolder('m.bin.big'), 'content and more');
    assert.equal(await readCopy(), undefined);
    assert.deepEqual(await names(), ['m.bin.big.bad']);
  });

  it('takes the place of an earlier bad one', async () => {
    await publish(PART, 'first');
    await cache.setAside(PART, new Error('x'));
    await publish(PART, 'second');
    await cache.setAside(PART, new Error('x'));
    assert.deepEqual(await names(), ['m.bin.big.bad']);
    assert.equal(await readFile(inFolder('m.bin.big.bad'), 'utf8'), 'second');
  });

  it('does not hinder a new one', async () => {
    await publish(PART, 'first');
    await cache.setAside(PART, new Error('x'));
    await publish(PART, 'content');
    assert.deepEqual(await readCopy(), { text: 'content', record: recordOf('content') });
  });

  it('that is not there can be set aside without a fuss', async () => {
    await cache.setAside(PART, new Error('x'));
    await cache.setAside({ folder: '..', name: 'm' }, new Error('x'));
    await publish(PART, 'content');
    await cache.setAside({ folder: 'models', name: 'other' }, new Error('x'));
    assert.equal((await readCopy())?.text, 'content');
  });

  it('is none where a folder stands in its place, and the copies in that folder stay', async () => {
    const other = { folder: 'models/m.bin.big', name: 'inner' };
    await publish(other, 'of another resource');
    assert.equal(await readCopy(), undefined);
    await cache.setAside(PART, new Error('x'));
    await cache.remove(PART);
    assert.deepEqual(await names(), ['m.bin.big']);
    await assert.rejects(publish(PART, 'content'), { code: 'cache_unusable' });
    assert.equal((await readCopy(other))?.text, 'of another resource');
  });

  it('is removed when it is bad and a folder stands where it would be set aside, and the copies in that folder stay', async () => {
    const other = { folder: 'models/m.bin.big.bad', name: 'inner' };
    await publish(other, 'of another resource');
    await publish(PART, 'content');
    await cache.setAside(PART, new Error('x'));
    assert.deepEqual(await names(), ['m.bin.big.bad']);
    assert.equal((await readCopy(other))?.text, 'of another resource');
  });

  it('is set aside when it is a symbolic link, whose target is neither read nor touched', async () => {
    const target = path.join(base, 'secret.txt');
    await writeFile(target, 'content');
    await mkdir(path.join(root, 'models'), { recursive: true });
    await symlink(target, inFolder('m.bin.big'));
    assert.equal(await readCopy(), undefined);
    assert.ok((await lstat(inFolder('m.bin.big.bad'))).isSymbolicLink());
    assert.equal(await readFile(target, 'utf8'), 'content');
  });

  it('is set aside when it is a FIFO, without waiting for its writer', { timeout: 5000 }, async () => {
    await mkdir(path.join(root, 'models'), { recursive: true });
    execFileSync('mkfifo', [inFolder('m.bin.big')]);
    assert.equal(await readCopy(), undefined);
    assert.deepEqual(await names(), ['m.bin.big.bad']);
  });
});

describe('a folder that points out of the cache', () => {
  let outside = '';

  beforeEach(async () => {
    outside = path.join(base, 'outside');
    await mkdir(outside);
    await mkdir(root);
    await writeFile(path.join(outside, 'm.bin.big'), 'not ours');
    await symlink(outside, path.join(root, 'models'));
  });

  it('is not read', async () => assert.equal(await readCopy(), undefined));

  it('is not written, and nothing in it is moved or removed', async () => {
    await assert.rejects(publish(PART, 'content'), { code: 'cache_unusable' });
    await cache.setAside(PART, new Error('x'));
    await cache.remove(PART);
    assert.deepEqual(await readdir(outside), ['m.bin.big']);
    assert.equal(await readFile(path.join(outside, 'm.bin.big'), 'utf8'), 'not ours');
  });
});

describe('a name that is none', () => {
  for (const part of [
    { folder: 'models', name: '..' },
    { folder: 'models', name: '../x' },
    { folder: 'models', name: 'a/b' },
    { folder: 'models', name: '' },
    { folder: 'models', name: 'a\0b' },
    { folder: '..', name: 'm' },
    { folder: '', name: 'm' },
    { folder: 'a/../..', name: 'm' },
  ]) {
    it(`is refused: ${JSON.stringify(part)}`, async () => {
      await assert.rejects(publish(part, 'content'), { code: 'cache_unusable' });
      assert.equal(await readCopy(part), undefined);
      await cache.remove(part);
      assert.deepEqual(await readdir(base), ['models']);
      const left = await readdir(root, { recursive: true });
      assert.deepEqual(
        left.filter((name) => name !== '.parts'),
        [],
      );
    });
  }
});

describe('a long name', () => {
  for (let length = 240; length <= 255; length++) {
    it(`of ${length} bytes can be published, opened, set aside and removed`, async () => {
      const part = { folder: 'models', name: 'n'.repeat(length) };
      await publish(part, 'content');
      assert.deepEqual(await readCopy(part), { text: 'content', record: recordOf('content') });
      await cache.setAside(part, new Error('x'));
      assert.equal(await readCopy(part), undefined);
      await publish(part, 'again');
      await cache.remove(part);
      assert.equal(await readCopy(part), undefined);
      assert.equal((await names()).length, 1);
    });
  }

  it('of many bytes in few characters can be published too', async () => {
    const part = { folder: 'models', name: '🛰'.repeat(63) };
    await publish(part, 'content');
    assert.equal((await readCopy(part))?.text, 'content');
  });

  it('is not taken for another that begins with the same 254 bytes', async () => {
    await publish({ folder: 'models', name: `${'n'.repeat(254)}a` }, 'a');
    await publish({ folder: 'models', name: `${'n'.repeat(254)}b` }, 'b');
    assert.equal((await readCopy({ folder: 'models', name: `${'n'.repeat(254)}a` }))?.text, 'a');
  });
});

describe('a publication that ends half-way', () => {
  it('between record and file serves no old bytes under the new record, whose length differs', async () => {
    await publish(PART, 'earlier content');
    // What a crash between the two leaves: the new record beside the old file.
    await rename(inFolder('m.bin.big'), inFolder('old'));
    await publish(PART, 'content');
    await rename(inFolder('old'), inFolder('m.bin.big'));
    assert.equal(await readCopy(), undefined);
    assert.deepEqual(await names(), ['m.bin.big.bad']);
  });

  it('before the first file of a resource leaves a record alone, which is no copy', async () => {
    await publish(PART, 'content');
    await rm(inFolder('m.bin.big'));
    assert.equal(await readCopy(), undefined);
    await publish(PART, 'other');
    assert.equal((await readCopy())?.text, 'other');
  });

  it('fails with cache_unusable where a folder stands in the way, and leaves no unfinished file', async () => {
    await mkdir(inFolder('m.bin.big/inner'), { recursive: true });
    await assert.rejects(publish(PART, 'content'), { name: 'LoaderError', code: 'cache_unusable' });
    assert.deepEqual(await readdir(path.join(root, '.parts')), []);
  });

  it('fails with cache_unusable where the root cannot be a folder', async () => {
    await writeFile(root, 'a file');
    await assert.rejects(cache.createDraft(), { name: 'LoaderError', code: 'cache_unusable' });
    assert.equal(await cache.open(PART), undefined);
    await cache.removeLeftovers();
    assert.equal(await readFile(root, 'utf8'), 'a file');
  });
});

describe('removing a copy', () => {
  it('removes file and record', async () => {
    await publish(PART, 'content');
    await cache.remove(PART);
    assert.equal(await readCopy(), undefined);
    assert.deepEqual(await names(), []);
  });

  it('leaves the copies of others', async () => {
    await publish(PART, 'content');
    await publish({ folder: 'models', name: 'm' }, 'other');
    await cache.remove(PART);
    assert.deepEqual(await names(), ['m.big', 'm.big.dsse']);
  });

  it('does nothing where there is none', async () => {
    await cache.remove(PART);
    assert.deepEqual(await readdir(base), []);
  });
});

describe('what an earlier process left behind', () => {
  it('is removed, and the published copies stay', async () => {
    await publish(PART, 'content');
    const files = await Promise.all([cache.createDraft(), cache.createDraft()]);
    for (const file of files) await file.close();
    assert.equal((await readdir(path.join(root, '.parts'))).length, 2);
    await cache.removeLeftovers();
    assert.deepEqual(await readdir(path.join(root, '.parts')), []);
    assert.equal((await readCopy())?.text, 'content');
  });

  it('is told from the copies of a resource folder with the same name', async () => {
    const part = { folder: '.parts', name: 'm' };
    await publish(part, 'content');
    await cache.removeLeftovers();
    assert.equal((await readCopy(part))?.text, 'content');
  });

  it('is nothing on a device that is new', async () => {
    await cache.removeLeftovers();
    assert.deepEqual(await readdir(base), []);
  });
});

it('serves the copies of a cache that was moved to another place', async () => {
  await publish(PART, 'content');
  await rename(root, path.join(base, 'elsewhere'));
  cache = new BigPartCache(path.join(base, 'elsewhere'), path.join(base, 'state'), createLogger({ level: 'silent' }));
  assert.equal((await readCopy())?.text, 'content');
});
