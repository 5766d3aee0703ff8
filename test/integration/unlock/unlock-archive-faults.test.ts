import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { truncate, utimes } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { after, before, beforeEach, describe, it } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { encryptEnvelope, encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { deriveArchiveAesKey } from '../../../src/security/key-derivation.ts';
import type { UnlockStatus } from '../../../src/unlock/unlock-service.ts';
import { archiveEntries, saveImages } from '../../../lab/images/image-maker.ts';
import { startDockerd, stopDockerd } from '../../../lab/services/services.ts';
import { tarArchive, tarEntry, type TarEntry } from '../../../lab/images/tar-entry.ts';
import { DOCKER_SKIP } from '../../../lab/test-environment.ts';
import { testImages } from '../../support/test-images.ts';
import { UnlockDevice } from '../../support/unlock-device.ts';

const ENGINE = 'dockerd-archive-faults';
const BLOCK = 16;

describe('an unlock of a bad archive', { skip: DOCKER_SKIP }, () => {
  let device: UnlockDevice;
  const images = testImages('bad');
  const entries = archiveEntries(images);
  const tar = tarArchive(entries);
  let sealed: Buffer;

  before(async () => {
    device = await UnlockDevice.start((await startDockerd(ENGINE, { isInMemory: true })).host);
    sealed = encryptBuffer(tar, deriveArchiveAesKey(device.origin.keyFragment));
  });

  beforeEach(async () => {
    await device.clear();
  });

  after(async () => {
    await device.stop();
    await stopDockerd(ENGINE);
  });

  /** It failed with that code and sentence, the engine has got nothing, and nothing was left behind. */
  async function assertRefused(envelope: Buffer, code: string, sentence: RegExp): Promise<void> {
    await device.putEnvelope(envelope);
    assertFailed(await device.unlock(), code, sentence);
    assert.deepEqual(device.engineProxy.loads, [], 'the engine was sent something');
    await device.assertTidy();
  }

  function assertFailed(status: UnlockStatus, code: string, sentence: RegExp): void {
    assert.deepEqual([status.state, status.code], ['error', code], JSON.stringify(status));
    assert.match(status.error ?? '', sentence);
  }

  async function assertGoodOneFollows(): Promise<void> {
    await device.putEnvelope(sealed);
    const { state, error } = await device.unlock();
    assert.deepEqual([state, error], ['ready', null]);
    await device.assertLoaded(images);
    await device.assertTidy();
  }

  function seal(plaintext: Buffer): Buffer {
    return encryptBuffer(plaintext, deriveArchiveAesKey(device.origin.keyFragment));
  }

  /** The archive with some entries changed; undefined removes one. */
  function sealChanged(change: (entry: TarEntry) => TarEntry | Buffer | undefined): Buffer {
    return seal(tarArchive(entries.map(change).filter((entry) => entry !== undefined)));
  }

  function withManifest(content: string | Buffer): Buffer {
    return sealChanged((entry) => (entry.name === 'manifest.json' ? { ...entry, content } : entry));
  }

  function manifest(change: (items: { Config: string; RepoTags: string[]; Layers: string[] }[]) => unknown): Buffer {
    const entry = entries.find(({ name }) => name === 'manifest.json');
    const items = JSON.parse(String(entry?.content)) as { Config: string; RepoTags: string[]; Layers: string[] }[];
    return withManifest(JSON.stringify(change(items)));
  }

  /** Where the data of an entry lies in the tar. */
  function offsetOf(wanted: (entry: TarEntry) => boolean): number {
    let offset = 0;
    for (const entry of entries) {
      const length = tarEntry(entry).length;
      if (wanted(entry)) return offset + 512;
      offset += length;
    }
    throw new Error('there is no such entry');
  }

  /** The envelope with one bit of one byte of the plaintext's block flipped. */
  function flipped(plaintextOffset: number): Buffer {
    const copy = Buffer.from(sealed);
    const at = BLOCK + plaintextOffset;
    copy.writeUInt8(copy.readUInt8(at) ^ 0x10, at);
    return copy;
  }

  it('says that an empty or cut file is no archive', async () => {
    await assertRefused(Buffer.alloc(0), 'archive_invalid', /has 0 bytes.*empty or cut/);
    await assertRefused(randomBytes(16), 'archive_invalid', /has 16 bytes/);
    await assertRefused(sealed.subarray(0, sealed.length - 7), 'archive_invalid', /blocks of 16/);
    await assertRefused(randomBytes(32), 'archive_key_wrong', /key fragment/);
    await assertRefused(seal(Buffer.from('hello')), 'archive_invalid', /too short/);
    await assertGoodOneFollows();
  });

  it('finds the cut at each of 50 places', async () => {
    for (let place = 1; place <= 50; place++) {
      const length = Math.floor((sealed.length * place) / 51 / BLOCK) * BLOCK;
      await assertRefused(sealed.subarray(0, length), 'archive_invalid', /damaged or missing|cut|has \d+ bytes/);
    }
    await assertGoodOneFollows();
  });

  it('finds a flipped bit before the engine has an image of it, wherever it is', async () => {
    const header = offsetOf(({ name }) => name === 'manifest.json') - 512;
    const config = entries.find(({ name }) => /^[0-9a-f]{64}\.json$/.test(name))?.name ?? '';
    const ivFlipped = Buffer.from(sealed);
    ivFlipped.writeUInt8(ivFlipped.readUInt8(3) ^ 1, 3);
    const lastFlipped = Buffer.from(sealed);
    lastFlipped.writeUInt8(lastFlipped.readUInt8(sealed.length - 5) ^ 1, sealed.length - 5);
    await assertRefused(ivFlipped, 'archive_invalid', /first header/);
    await assertRefused(flipped(64), 'archive_invalid', /first header/);
    await assertRefused(flipped(header + 100), 'archive_invalid', /checksum/);
    await assertRefused(flipped(offsetOf(({ name }) => name === 'manifest.json') + 40), 'archive_invalid', /manifest/);
    await assertRefused(flipped(offsetOf(({ name }) => name === config) + 40), 'archive_invalid', /digest/);
    await assertRefused(lastFlipped, 'archive_invalid', /end is damaged/);
    await assertGoodOneFollows();
  });

  it('stops the image of a flipped layer before its end is sent', async () => {
    // With links, each layer is in it once.
    const linked = saveImages(images, { linksRepeatedLayers: true });
    for (const [index, image] of images.entries()) {
      const layer = image.layers.at(-1) ?? Buffer.alloc(0);
      const at = linked.indexOf(layer) + Math.floor((layer.length * (index + 1)) / 7);
      const damaged = Buffer.from(seal(linked));
      damaged.writeUInt8(damaged.readUInt8(BLOCK + at) ^ 0x10, BLOCK + at);
      await device.putEnvelope(damaged);
      assertFailed(await device.unlock(), 'archive_invalid', /layer sha256:[0-9a-f]{64} does not match/);
      assert.equal(await device.docker.inspect(image.id), undefined, 'the damaged image was loaded');
      assert.ok(await device.docker.ping());
      await device.assertTidy();
      await device.docker.removeAll();
    }
    await assertGoodOneFollows();
  });

  it('refuses a manifest that is absent, no manifest, or names what is not there', async () => {
    await assertRefused(
      sealChanged((entry) => (entry.name === 'manifest.json' ? undefined : entry)),
      'archive_invalid',
      /no manifest\.json/,
    );
    await assertRefused(withManifest('[{"Config":'), 'archive_invalid', /not JSON/);
    await assertRefused(withManifest(Buffer.from([0x5b, 0x22, 0xff, 0x22, 0x5d])), 'archive_invalid', /not JSON/);
    await assertRefused(withManifest('{}'), 'archive_invalid', /names no images/);
    await assertRefused(withManifest('[]'), 'archive_invalid', /names no images/);
    await assertRefused(withManifest('[{"Config":7}]'), 'archive_invalid', /valid Config/);
    const absent = manifest(([first, ...rest]) => [{ ...first, Layers: ['absent/layer.tar'] }, ...rest]);
    await assertRefused(absent, 'archive_invalid', /names absent\/layer\.tar, which it does not hold/);
    const fewer = manifest(([first, ...rest]) => [{ ...first, Layers: [] }, ...rest]);
    await assertRefused(fewer, 'archive_invalid', /number of layers/);
    await assertGoodOneFollows();
  });

  it('refuses paths that lead out of the archive', async () => {
    const paths = ['../../etc/passwd', '/etc/passwd', 'a/../../b'];
    for (const path of paths) {
      const outside = manifest(([first, ...rest]) => [{ ...first, Config: path }, ...rest]);
      await assertRefused(outside, 'archive_invalid', /leads out/);
      await assertRefused(seal(tarArchive([{ name: path, content: 'x' }, ...entries])), 'archive_invalid', /leads out/);
    }
    await assertGoodOneFollows();
  });

  it('refuses tags that are none, and one tag for two images', async () => {
    for (const tag of [
      '..',
      '../containers',
      'a/b',
      'a b:1',
      'a:b:c',
      `a@sha256:${'0'.repeat(64)}`,
      'A/B:1',
      '\ud800:1',
    ]) {
      const named = manifest(([first, ...rest]) => [{ ...first, RepoTags: [tag] }, ...rest]);
      await assertRefused(named, 'archive_invalid', /a tag that Docker does not allow/);
    }
    const twice = manifest((items) => items.map((item) => ({ ...item, RepoTags: ['azaion-test/same:1'] })));
    await assertRefused(twice, 'archive_invalid', /gives azaion-test\/same:1 to two images/);
    await assertGoodOneFollows();
  });

  it('refuses names that are too long together', async () => {
    const long = Array.from({ length: 5000 }, (_, index) =>
      tarEntry({ name: `${index}/${'n'.repeat(4000)}`, nameStyle: 'gnu' }),
    );
    await assertRefused(seal(tarArchive([...long, ...entries])), 'archive_invalid', /names are too long/);
    await assertGoodOneFollows();
  });

  it('refuses 10,000 images, and a manifest that claims a gigabyte, without the memory for them', async () => {
    const many = manifest(([first]) => Array.from({ length: 10_000 }, () => first));
    await assertRefused(many, 'archive_invalid', /names 10000 images; at most 1000/);
    const claims = sealChanged((entry) =>
      entry.name === 'manifest.json' ? { ...entry, claimedSize: 1_000_000_000 } : entry,
    );
    await assertRefused(claims, 'archive_invalid', /cut|not complete/);
    await assertGoodOneFollows();
  });

  it('refuses a manifest that has a gigabyte, without the memory for it', async () => {
    const length = 1_000_000_000;
    const head = tarEntry({ name: 'manifest.json', claimedSize: length }).subarray(0, 512);
    const block = Buffer.alloc(1_000_000, ' ');
    const plaintext = function* () {
      yield head;
      for (let written = 0; written < length; written += block.length) yield block;
      yield Buffer.alloc(512 - (length % 512) + 1024);
    };
    const key = deriveArchiveAesKey(device.origin.keyFragment);
    await device.putEnvelope(Buffer.alloc(0));
    await pipeline(encryptEnvelope(plaintext(), key), createWriteStream(device.archivePath));
    const peakBefore = device.loader.peakMemory();
    assertFailed(await device.unlock(), 'archive_invalid', /manifest\.json in it has 1000000000 bytes; at most/);
    assert.ok(device.loader.peakMemory() - peakBefore < 160 * 1024 * 1024);
    await assertGoodOneFollows();
  });

  it('tells a wrong key from a broken archive', async () => {
    device.origin.api.keyFragment = randomBytes(64);
    await assertRefused(sealed, 'archive_key_wrong', /made for another one/);
    device.origin.api.keyFragment = device.origin.keyFragment;
    await assertGoodOneFollows();
  });

  it('uses the key fragment as it is at each unlock', async () => {
    const next = randomBytes(33);
    await device.putEnvelope(encryptBuffer(tar, deriveArchiveAesKey(next)));
    assertFailed(await device.unlock(), 'archive_key_wrong', /key fragment/);
    device.origin.api.keyFragment = next;
    assert.equal((await device.unlock()).state, 'ready');
    await device.assertLoaded(images);
    device.origin.api.keyFragment = device.origin.keyFragment;
  });

  it('notices that the archive was replaced while it was unlocked', async () => {
    await device.putEnvelope(sealed);
    const release = Promise.withResolvers<undefined>();
    device.engineProxy.fault = () => ({ kind: 'hold', afterBytes: 100_000, until: release.promise });
    await device.post();
    await device.inState('loading_images');
    const next = testImages('next');
    await device.putArchive(saveImages(next));
    release.resolve(undefined);
    assertFailed(await device.ended(), 'archive_changed', /replaced or removed/);
    device.engineProxy.reset();
    assert.equal((await device.unlock()).state, 'ready');
    for (const { id } of next) assert.equal((await device.docker.inspect(id))?.Id, id);
  });

  it('notices that the archive was overwritten in place while it was unlocked', async () => {
    await device.putEnvelope(sealed);
    const release = Promise.withResolvers<undefined>();
    device.engineProxy.fault = () => ({ kind: 'hold', afterBytes: 100_000, until: release.promise });
    await device.post();
    await device.inState('loading_images');
    await truncate(device.archivePath, sealed.length / 2);
    await utimes(device.archivePath, new Date(), new Date());
    release.resolve(undefined);
    assertFailed(await device.ended(), 'archive_changed', /replaced or removed/);
    device.engineProxy.reset();
    await device.docker.removeAll();
    await assertGoodOneFollows();
  });

  for (const compression of ['gzip', 'zstd'] as const) {
    describe(`that is compressed as a whole with ${compression}`, () => {
      let compressed: Buffer;

      before(() => {
        compressed = compression === 'gzip' ? gzipSync(tar, { level: 1 }) : zstdCompressSync(tar);
      });

      it('is streamed whole when it is good', async () => {
        await device.putEnvelope(seal(compressed));
        assert.equal((await device.unlock()).state, 'ready');
        await device.assertLoaded(images);
        assert.equal(device.engineProxy.loads.length, 1, `loads of ${device.engineProxy.loads.join(', ')} bytes`);
      });

      it('loads nothing when it is cut or damaged', async () => {
        const damaged = Buffer.from(compressed);
        const middle = Math.floor(damaged.length / 2);
        damaged.writeUInt8(damaged.readUInt8(middle) ^ 1, middle);
        for (const bad of [damaged, compressed.subarray(0, compressed.length - 4000)]) {
          await device.putEnvelope(seal(bad));
          assertFailed(await device.unlock(), 'archive_invalid', /decompressed|checksum|digest|JSON|cut|names|size/);
          assert.deepEqual(await device.docker.imageIds(), []);
          await device.assertTidy();
        }
        await device.putEnvelope(seal(compressed));
        assert.equal((await device.unlock()).state, 'ready');
      });

      it('loads nothing when a layer in it is not what its image says', async () => {
        const wrong = Buffer.from(tar);
        const at = offsetOf(({ name }) => name.endsWith('layer.tar')) + 5000;
        wrong.writeUInt8(wrong.readUInt8(at) ^ 1, at);
        await device.putEnvelope(
          seal(compression === 'gzip' ? gzipSync(wrong, { level: 1 }) : zstdCompressSync(wrong)),
        );
        assertFailed(await device.unlock(), 'archive_invalid', /does not match its digest; nothing of the archive/);
        assert.deepEqual(await device.docker.imageIds(), []);
      });
    });
  }
});
