import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { StreamedTar } from '../../../src/archive/streamed-tar.ts';
import {
  archiveEntries,
  makeImage,
  makeLayer,
  saveImages,
  seededBytes,
  type ArchiveOptions,
} from '../../../lab/images/image-maker.ts';
import { TAR_END, tarArchive, type TarEntry } from '../../../lab/images/tar-entry.ts';
import type { WantedImage } from '../../../src/archive/archive-images.ts';

const INVALID = { name: 'LoaderError', code: 'archive_invalid' };
const WHOLE = Infinity;
const CHUNKS = [1, 7, 512, 4096, WHOLE] as const;

const base = makeLayer({ 'base.bin': seededBytes('base', 9000) });
const top = makeLayer({ 'top.bin': seededBytes('top', 700) });
const images = [
  makeImage({ tags: ['azaion/api:1', 'azaion/api:latest'], layers: [base, top, base] }),
  makeImage({ tags: ['azaion/db:1'], layers: [base] }),
  makeImage({ layers: [] }),
];
const WANTED: WantedImage[] = images.map(({ id, tags, diffIds }) => ({ id, tags, diffIds }));

function feed(tar: Buffer, chunkLength: number): StreamedTar {
  const streamed = new StreamedTar();
  if (chunkLength === WHOLE) streamed.take(tar);
  else for (let at = 0; at < tar.length; at += chunkLength) streamed.take(tar.subarray(at, at + chunkLength));
  return streamed;
}

function observe(tar: Buffer, chunkLength: number = WHOLE): WantedImage[] {
  return feed(tar, chunkLength).images();
}

/** The archive as `change` makes it of its entries. */
function changed(change: (entry: TarEntry) => readonly TarEntry[], options: ArchiveOptions = {}): Buffer {
  return tarArchive(archiveEntries(images, options).flatMap(change));
}

function isContent(entry: TarEntry, content: Buffer): boolean {
  return Buffer.isBuffer(entry.content) && entry.content.equals(content);
}

describe('an archive that streams by', () => {
  const options: ArchiveOptions[] = (['ustar', 'gnu', 'pax'] as const).flatMap((nameStyle): ArchiveOptions[] => [
    { layout: 'classic', nameStyle },
    { layout: 'classic', nameStyle, linksRepeatedLayers: true, putsManifestFirst: true },
    { layout: 'classic', nameStyle, linksRepeatedLayers: true, compression: 'gzip' },
    { layout: 'oci', nameStyle },
    { layout: 'oci', nameStyle, compression: 'gzip', putsManifestFirst: true },
    { layout: 'oci', nameStyle, compression: 'zstd' },
  ]);
  for (const each of options) {
    it(`has the images that its manifest names, in chunks of any size: ${JSON.stringify(each)}`, () => {
      const tar = saveImages(images, each);
      for (const chunkLength of CHUNKS) assert.deepEqual(observe(tar, chunkLength), WANTED, `${chunkLength}`);
    });
  }

  it('may come in chunks of no bytes, too', () => {
    const streamed = new StreamedTar();
    const tar = saveImages(images);
    for (let at = 0; at < tar.length; at += 100) {
      streamed.take(Buffer.alloc(0));
      streamed.take(tar.subarray(at, at + 100));
    }
    assert.deepEqual(streamed.images(), WANTED);
  });

  it('may be released chunk by chunk', () => {
    const streamed = new StreamedTar();
    const tar = saveImages(images, { layout: 'oci' });
    for (let at = 0; at < tar.length; at += 333) {
      const chunk = Buffer.from(tar.subarray(at, at + 333));
      streamed.take(chunk);
      chunk.fill(0xff);
    }
    assert.deepEqual(streamed.images(), WANTED);
  });

  it('may have anything behind its end mark', () => {
    const tar = Buffer.concat([saveImages(images), Buffer.alloc(10_000, 'garbage')]);
    for (const chunkLength of CHUNKS) assert.deepEqual(observe(tar, chunkLength), WANTED);
  });

  it('is ending from its first block of zeros on, unless another entry follows', () => {
    for (const chunkLength of [1, 512]) {
      const streamed = feed(tarArchive(archiveEntries(images), { hasEndMark: false }), chunkLength);
      assert.equal(streamed.isEnding, false);
      streamed.take(TAR_END.subarray(0, 511));
      assert.equal(streamed.isEnding, false);
      streamed.take(TAR_END.subarray(0, 1));
      assert.equal(streamed.isEnding, true);
      streamed.take(tarArchive([{ name: 'more' }], { hasEndMark: false }));
      assert.equal(streamed.isEnding, false);
      streamed.take(TAR_END);
      assert.equal(streamed.isEnding, true);
      assert.deepEqual(streamed.images(), WANTED);
    }
  });

  it('has the last of several files of one name', () => {
    const tar = changed((entry) =>
      isContent(entry, top) ? [{ ...entry, content: Buffer.alloc(1024, 'x') }, entry] : [entry],
    );
    assert.deepEqual(observe(tar), WANTED);
    const reversed = changed((entry) =>
      isContent(entry, top) ? [entry, { ...entry, content: Buffer.alloc(1024, 'x') }] : [entry],
    );
    assert.throws(() => observe(reversed), INVALID);
  });

  it('may have a layer that begins as JSON does', () => {
    const odd = makeLayer({ '[id].js': 'page', '{x}': 'x' });
    const image = makeImage({ tags: ['odd:1'], layers: [odd] });
    for (const chunkLength of CHUNKS) {
      const found = observe(saveImages([image]), chunkLength);
      assert.deepEqual(found, [{ id: image.id, tags: image.tags, diffIds: image.diffIds }]);
    }
  });
});

describe('a layer that streams by', () => {
  for (const options of [
    {},
    { layout: 'oci' },
    { layout: 'oci', compression: 'gzip' },
    { layout: 'oci', compression: 'zstd' },
  ] as const) {
    it(`is refused when a bit of it is wrong, in chunks of any size: ${JSON.stringify(options)}`, () => {
      let isHurt = false;
      const tar = changed((entry) => {
        if (isHurt || !Buffer.isBuffer(entry.content) || entry.content.length < 9000) return [entry];
        isHurt = true;
        const bad = Buffer.from(entry.content);
        bad.writeUInt8(bad.readUInt8(5000) ^ 4, 5000);
        return [{ ...entry, content: bad }];
      }, options);
      assert.ok(isHurt);
      for (const chunkLength of CHUNKS) {
        assert.throws(() => observe(tar, chunkLength), { ...INVALID, message: /does not match its digest/ });
      }
    });
  }

  it('that is compressed, without a digest of its own, is left to the engine', () => {
    const tar = changed(
      (entry) => {
        if (!Buffer.isBuffer(entry.content) || !entry.name.endsWith('/layer.tar')) return [entry];
        const bad = Buffer.from(entry.content);
        bad.writeUInt8(bad.readUInt8(600) ^ 4, 600);
        return [{ ...entry, content: bad }];
      },
      { compression: 'gzip' },
    );
    for (const chunkLength of CHUNKS) assert.deepEqual(observe(tar, chunkLength), WANTED);
  });

  it('is told to be compressed by four bytes, which may come one by one', () => {
    const almost = Buffer.from([0x28, 0xb5, 0x2f, 0xfe, 1, 2, 3]);
    const tar = changed((entry) => (isContent(entry, top) ? [{ ...entry, content: almost }] : [entry]));
    for (const chunkLength of CHUNKS) assert.throws(() => observe(tar, chunkLength), INVALID);
    almost[3] = 0xfd;
    const zstd = changed((entry) => (isContent(entry, top) ? [{ ...entry, content: almost }] : [entry]));
    for (const chunkLength of CHUNKS) assert.deepEqual(observe(zstd, chunkLength), WANTED);
  });
});

describe('a stream is refused', () => {
  it('when it is cut anywhere before its end mark is whole', () => {
    const tar = saveImages(images, { layout: 'oci', nameStyle: 'pax' });
    const streamed = new StreamedTar();
    // Fed once, and asked after each step: that changes nothing.
    for (let at = 0; at < tar.length - 1; at += 127) {
      assert.throws(() => streamed.images(), { ...INVALID, message: /cut or not complete/ }, `at ${at}`);
      streamed.take(tar.subarray(at, Math.min(at + 127, tar.length - 1)));
    }
    assert.throws(() => streamed.images(), INVALID);
    streamed.take(tar.subarray(-1));
    assert.deepEqual(streamed.images(), WANTED);
  });

  it('without an end mark, with half of one, and when it is empty', () => {
    const tar = tarArchive(archiveEntries(images), { hasEndMark: false });
    for (const chunkLength of CHUNKS) {
      assert.throws(() => observe(tar, chunkLength), INVALID);
      assert.throws(() => observe(Buffer.concat([tar, TAR_END.subarray(512)]), chunkLength), INVALID);
    }
    assert.throws(() => observe(Buffer.alloc(0)), INVALID);
  });

  it('at once when a header is damaged', () => {
    const tar = changed((entry) => [{ ...entry, hasBadChecksum: entry.name === 'manifest.json' }]);
    for (const chunkLength of CHUNKS) assert.throws(() => feed(tar, chunkLength), { ...INVALID, message: /checksum/ });
  });

  it('at once when an entry leads out of it', () => {
    assert.throws(() => feed(tarArchive([{ name: '../x' }]), 100), INVALID);
  });

  for (const name of ['manifest.json', 'config', 'layer'] as const) {
    it(`without its ${name}`, () => {
      const isIt = (entry: TarEntry) =>
        name === 'layer'
          ? isContent(entry, top)
          : name === 'config'
            ? isContent(entry, images[0]?.config ?? top)
            : entry.name === name;
      const tar = changed((entry) => (isIt(entry) ? [] : [entry]));
      assert.throws(() => observe(tar), INVALID);
    });
  }

  it('when a config does not match its digest, or is a layer, or has more than 8 MiB', () => {
    const swapped = (content: string | Buffer) =>
      changed((entry) => (isContent(entry, images[0]?.config ?? top) ? [{ ...entry, content }] : [entry]));
    assert.throws(() => observe(swapped(String(images[0]?.config).replace('linux', 'Linux'))), INVALID);
    assert.throws(() => observe(swapped(base)), { ...INVALID, message: /too long for an image config/ });
    assert.throws(() => observe(swapped('{'.padEnd(8 * 1024 * 1024 + 1))), { ...INVALID, message: /too long/ });
  });

  it('when manifest.json and a config disagree about the layers', () => {
    const tar = changed((entry) => {
      if (entry.name !== 'manifest.json') return [entry];
      const [item, ...others] = JSON.parse(String(entry.content)) as { Layers: string[] }[];
      return [{ ...entry, content: JSON.stringify([{ ...item, Layers: item?.Layers.slice(1) }, ...others]) }];
    });
    assert.throws(() => observe(tar), { ...INVALID, message: /disagree/ });
  });

  it('when what looks like JSON in it has more than 32 MiB', () => {
    const streamed = new StreamedTar();
    const json = tarArchive([{ name: 'x.json', content: '{'.padEnd(8 * 1024 * 1024) }], { hasEndMark: false });
    for (let at = 0; at < 4; at++) streamed.take(json);
    assert.throws(() => streamed.take(json), { ...INVALID, message: /too many/ });
  });
});
