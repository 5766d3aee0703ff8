import assert from 'node:assert/strict';
import { truncateSync } from 'node:fs';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { checkArchive, type CheckedArchive } from '../../../src/archive/check-archive.ts';
import { NEVER } from '../../../src/async/abort.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { makeImage, makeLayer, saveImages, seededBytes } from '../../../lab/images/image-maker.ts';

const KEY = Buffer.alloc(32, 'k');
const base = makeLayer({ base: seededBytes('base', 3_000_000) });
const top = makeLayer({ top: seededBytes('top', 1000) });
const images = [
  makeImage({ tags: ['azaion/api:1'], layers: [base, top] }),
  makeImage({ tags: ['azaion/db:1'], layers: [base], architecture: 'arm64' }),
];
const tar = saveImages(images, { linksRepeatedLayers: true });

let folder = '';
let archive = '';

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-check-'));
  archive = path.join(folder, 'images.enc');
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function check(plaintext: Buffer, onBytes: (length: number) => void = () => undefined): Promise<CheckedArchive> {
  await writeFile(archive, encryptBuffer(plaintext, KEY));
  return await checkArchive(archive, KEY, { onBytes, signal: NEVER });
}

describe('checking an archive', () => {
  it('tells its images, and reads each layer once', async () => {
    let read = 0;
    const checked = await check(tar, (length) => (read += length));
    assert.deepEqual(checked, {
      compression: 'none',
      length: (await stat(archive)).size,
      images: images.map(({ id, tags, diffIds, layers }, at) => ({
        id,
        tags,
        diffIds,
        platform: at === 0 ? 'linux/amd64' : 'linux/arm64',
        bytes: layers.reduce((sum, layer) => sum + layer.length, 0),
      })),
    });
    assert.equal(read, base.length + top.length);
  });

  it('tells less of a compressed one, all of which it reads', async () => {
    const compressed = gzipSync(tar, { level: 1 });
    let read = 0;
    const checked = await check(compressed, (length) => (read += length));
    assert.deepEqual(
      checked.images,
      images.map(({ id, tags, diffIds }) => ({ id, tags, diffIds, platform: undefined, bytes: undefined })),
    );
    assert.deepEqual([checked.compression, read], ['gzip', compressed.length]);
  });

  for (const isCompressed of [false, true]) {
    const about = isCompressed ? 'compressed' : 'plain';

    it(`fails when a layer is wrong (${about})`, async () => {
      const bad = Buffer.from(tar);
      const at = bad.indexOf(top.subarray(600, 700));
      bad.writeUInt8(bad.readUInt8(at) ^ 1, at);
      await assert.rejects(check(isCompressed ? gzipSync(bad) : bad), {
        code: 'archive_invalid',
        message: /does not match its digest/,
      });
    });

    it(`tells a file that is cut while it is read as a change of the archive (${about})`, async () => {
      let cuts = 0;
      const cutOnce = () => {
        if (cuts++ === 0) truncateSync(archive, 1_000_000);
      };
      await assert.rejects(check(isCompressed ? gzipSync(tar, { level: 1 }) : tar, cutOnce), {
        code: 'archive_changed',
      });
      assert.ok(cuts > 0);
    });
  }

  it('stops with the reason of its signal', async () => {
    const abort = new AbortController();
    const reason = new Error('left');
    await writeFile(archive, encryptBuffer(tar, KEY));
    const options = { onBytes: () => abort.abort(reason), signal: abort.signal };
    await assert.rejects(checkArchive(archive, KEY, options), reason);
  });
});
