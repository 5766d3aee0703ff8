import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import type { EnvelopeReader } from '../../../src/security/envelope-reader.ts';
import { readArchiveIndex, type ArchiveImage } from '../../../src/archive/archive-index.ts';
import {
  archiveEntries,
  makeImage,
  makeLayer,
  saveImages,
  seededBytes,
  type ArchiveOptions,
  type Image,
} from '../../../lab/images/image-maker.ts';
import { tarArchive, type TarEntry } from '../../../lab/images/tar-entry.ts';
import { NEVER } from '../../../src/async/abort.ts';
import { sha256 } from '../../../lab/sha256.ts';
import { useEncryptedFiles } from '../../support/encrypted-files.ts';

const INVALID = { name: 'LoaderError', code: 'archive_invalid' };
const LAYOUTS = ['classic', 'oci'] as const;
const OPTIONS: ArchiveOptions[] = (['ustar', 'gnu', 'pax'] as const).flatMap((nameStyle) =>
  [false, true].flatMap((putsManifestFirst): ArchiveOptions[] => [
    { layout: 'classic', nameStyle, putsManifestFirst },
    { layout: 'classic', nameStyle, putsManifestFirst, linksRepeatedLayers: true },
    { layout: 'classic', nameStyle, putsManifestFirst, linksRepeatedLayers: true, compression: 'gzip' },
    { layout: 'oci', nameStyle, putsManifestFirst },
    { layout: 'oci', nameStyle, putsManifestFirst, compression: 'gzip' },
    { layout: 'oci', nameStyle, putsManifestFirst, compression: 'zstd' },
  ]),
);

const encrypt = useEncryptedFiles();

async function index(tar: Buffer): Promise<ArchiveImage[]> {
  return await readArchiveIndex(await encrypt(tar), NEVER);
}

/** The archive of `images` as `change` makes it of its entries. */
function changed(
  images: readonly Image[],
  change: (entry: TarEntry) => readonly TarEntry[],
  options: ArchiveOptions = {},
): Buffer {
  return tarArchive(archiveEntries(images, options).flatMap(change));
}

const base = makeLayer({ 'base/model.bin': seededBytes('base', 30_000) });
const empty = makeLayer({});
const top = makeLayer({ 'app/main.bin': seededBytes('top', 5000) });
const images = [
  makeImage({ tags: ['azaion/api:1.2.3', 'azaion/api:latest'], layers: [base, empty, top, empty] }),
  makeImage({ tags: ['azaion/db:2'], layers: [base, top], architecture: 'arm64' }),
  makeImage({ layers: [base] }),
  makeImage({ tags: ['azaion/nothing:1'], layers: [] }),
];
const [api, db] = images;
assert.ok(api && db);

describe('the index of an archive', () => {
  for (const options of OPTIONS) {
    it(`has every image with its tags, its config and its layers: ${JSON.stringify(options)}`, async () => {
      const reader = await encrypt(saveImages(images, options));
      const found = await readArchiveIndex(reader, NEVER);
      assert.deepEqual(
        found.map(({ config, tags, configJson }) => [config.id, tags, config.diffIds, config.architecture, configJson]),
        images.map(({ id, tags, diffIds, config }, at) => [id, tags, diffIds, at === 1 ? 'arm64' : 'amd64', config]),
      );
      const { compression = 'none', layout } = options;
      const unpack = { none: (file: Buffer) => file, gzip: gunzipSync, zstd: zstdDecompressSync }[compression];
      for (const [at, { layers }] of found.entries()) {
        assert.deepEqual(
          layers.map(({ diffId }) => diffId),
          images[at]?.diffIds,
        );
        for (const [index, layer] of layers.entries()) {
          const file = await reader.read(layer.file.start, layer.file.start + layer.file.length);
          assert.equal(layer.compression, compression);
          assert.ok(unpack(file).equals(images[at]?.layers[index] ?? Buffer.alloc(0)));
          assert.equal(layer.sha256, layout === 'oci' ? sha256(file) : undefined);
        }
      }
    });
  }

  for (const layout of LAYOUTS) {
    it(`has one image with the tags of both when it is named twice (${layout})`, async () => {
      const again = { ...api, tags: ['azaion/api:latest', 'azaion/api:old'] };
      const found = await index(saveImages([api, db, again], { layout }));
      assert.deepEqual(
        found.map(({ config, tags }) => [config.id, tags]),
        [
          [api.id, ['azaion/api:1.2.3', 'azaion/api:latest', 'azaion/api:old']],
          [db.id, ['azaion/db:2']],
        ],
      );
      assert.equal(found[0]?.layers.length, 4);
    });

    it(`is the same when the archive holds more than the manifest names (${layout})`, async () => {
      const entries = archiveEntries(images, { layout });
      const extra: TarEntry[] = [
        { name: 'blobs/sha512/x', content: 'x' },
        { name: './', type: 'directory' },
        { name: 'dangling', type: 'symlink', linkName: 'nowhere' },
      ];
      assert.equal((await index(tarArchive([...extra, ...entries]))).length, 4);
    });
  }

  it('has the layers of one chain under one ID, and of others under others', async () => {
    const [first, second, third] = await index(saveImages(images));
    assert.ok(first && second && third);
    assert.equal(first.layers[0]?.chainId, third.layers[0]?.chainId);
    assert.equal(first.layers[0]?.chainId, second.layers[0]?.chainId);
    // The same file upon something else.
    assert.equal(first.layers[2]?.diffId, second.layers[1]?.diffId);
    assert.notEqual(first.layers[2]?.chainId, second.layers[1]?.chainId);
    assert.notEqual(first.layers[1]?.chainId, first.layers[3]?.chainId);
  });

  it('of 1,000 images is read, of 10,000 refused', async () => {
    const many = Array.from({ length: 10_000 }, (_, at) => ({ Config: 'c.json', RepoTags: [`i:${at}`], Layers: [] }));
    const config = { name: 'c.json', content: makeImage({ layers: [] }).config };
    const archiveOf = (count: number) =>
      tarArchive([config, { name: 'manifest.json', content: JSON.stringify(many.slice(0, count)) }]);
    const [image, ...others] = await index(archiveOf(1000));
    assert.deepEqual([image?.tags.length, others.length], [1000, 0]);
    await assert.rejects(index(archiveOf(10_000)), INVALID);
  });
});

describe('an archive is refused', () => {
  for (const layout of LAYOUTS) {
    for (const name of ['manifest.json', 'the config', 'a layer'] as const) {
      it(`without ${name} (${layout})`, async () => {
        const hex = name === 'the config' ? api.id.slice(7) : sha256(top);
        const isIt = (entry: TarEntry) => {
          if (name === 'manifest.json') return entry.name === name;
          return name === 'a layer' ? entry.content === top : entry.name.includes(hex);
        };
        const tar = changed(images, (entry) => (isIt(entry) ? [] : [entry]), { layout });
        await assert.rejects(index(tar), INVALID);
      });
    }

    it(`when a config was changed (${layout})`, async () => {
      const change = (entry: TarEntry) =>
        entry.content === api.config ? [{ ...entry, content: String(api.config).replace('amd64', 'arm64') }] : [entry];
      await assert.rejects(index(changed(images, change, { layout })), { ...INVALID, message: /match its digest/ });
    });
  }

  it('when manifest.json claims 1 GB, before that is read', async () => {
    const change = (entry: TarEntry) => (entry.name === 'manifest.json' ? [{ ...entry, claimedSize: 1e9 }] : [entry]);
    await assert.rejects(index(changed(images, change)), INVALID);
    // The gigabyte is there, as far as the reader was told.
    const small = await encrypt(changed([], change, { putsManifestFirst: true }));
    let bytes = 0;
    const huge = {
      plaintextLength: 2e9,
      read: async (start: number, end: number) => {
        bytes += end - start;
        const within = start < small.plaintextLength ? await small.read(start, Math.min(end, 512)) : Buffer.alloc(0);
        return Buffer.concat([within, Buffer.alloc(end - start - within.length)]);
      },
    } as unknown as EnvelopeReader;
    await assert.rejects(readArchiveIndex(huge, NEVER), { ...INVALID, message: /1000000000 bytes; at most 8388608/ });
    assert.ok(bytes < 100_000, `${bytes} bytes were read`);
  });

  it('when manifest.json has more than 8 MiB, or a config more than 4 MiB', async () => {
    const manifest = (length: number) => {
      const json = JSON.stringify([{ Config: 'c.json', Layers: [] }]);
      return { name: 'manifest.json', content: json.padEnd(length) };
    };
    const config = (length: number) => ({
      name: 'c.json',
      content: '{"architecture":"amd64","os":"linux"}'.padEnd(length),
    });
    const [MANIFEST, CONFIG] = [8 * 1024 * 1024, 4 * 1024 * 1024];
    assert.equal((await index(tarArchive([manifest(MANIFEST), config(CONFIG)]))).length, 1);
    await assert.rejects(index(tarArchive([manifest(MANIFEST + 1), config(100)])), INVALID);
    await assert.rejects(index(tarArchive([manifest(100), config(CONFIG + 1)])), INVALID);
  });

  it('when its configs together have more than 32 MiB', async () => {
    const config = { name: 'c.json', content: '{"architecture":"amd64","os":"linux"}'.padEnd(4 * 1024 * 1024) };
    const manifest = (count: number) => ({
      name: 'manifest.json',
      content: JSON.stringify(Array.from({ length: count }, () => ({ Config: 'c.json' }))),
    });
    assert.equal((await index(tarArchive([manifest(8), config]))).length, 1);
    await assert.rejects(index(tarArchive([manifest(9), config])), { ...INVALID, message: /too many/ });
  });

  it('when its images together have more than 20,000 layers', async () => {
    const layer = makeLayer({});
    const one = makeImage({ layers: Array.from({ length: 500 }, () => layer) });
    const archiveOf = (count: number) => {
      const item = { Config: 'c.json', Layers: one.layers.map(() => 'l.tar') };
      return tarArchive([
        { name: 'manifest.json', content: JSON.stringify(Array.from({ length: count }, () => item)) },
        { name: 'c.json', content: one.config },
        { name: 'l.tar', content: layer },
      ]);
    };
    assert.equal((await index(archiveOf(40)))[0]?.layers.length, 500);
    await assert.rejects(index(archiveOf(41)), { ...INVALID, message: /too many/ });
  });

  it('when manifest.json and config disagree about the number of layers', async () => {
    for (const change of [(layers: string[]) => layers.slice(1), (layers: string[]) => [...layers, ...layers]]) {
      const tar = changed([api], (entry) => {
        if (entry.name !== 'manifest.json') return [entry];
        const [item] = JSON.parse(String(entry.content)) as [{ Layers: string[] }];
        return [{ ...entry, content: JSON.stringify([{ ...item, Layers: change(item.Layers) }]) }];
      });
      await assert.rejects(index(tar), { ...INVALID, message: /disagree/ });
    }
  });

  it('when a layer, or manifest.json, is a folder or a link in a circle', async () => {
    const circle = (entry: TarEntry) =>
      entry.content === top ? [{ name: entry.name, type: 'symlink', linkName: 'layer.tar' }] : [entry];
    await assert.rejects(index(changed(images, circle)), { ...INVALID, message: /circle/ });
    const directory = (entry: TarEntry) =>
      entry.name === 'manifest.json' ? [{ name: entry.name, type: 'directory' }] : [entry];
    await assert.rejects(index(changed(images, directory)), INVALID);
  });

  it('when it is no archive of docker save at all', async () => {
    await assert.rejects(index(tarArchive([])), { ...INVALID, message: /no manifest.json/ });
    await assert.rejects(index(Buffer.alloc(5000, 'x')), INVALID);
    await assert.rejects(index(Buffer.alloc(0)), INVALID);
  });

  it('with the reason of its reader, who has left', async () => {
    const reader = await encrypt(saveImages(images));
    await assert.rejects(readArchiveIndex(reader, AbortSignal.abort(new Error('left'))), /left/);
  });

  it('with the reason of its reader, who leaves while the images are read', async (t) => {
    const reader = await encrypt(saveImages(images, { putsManifestFirst: true }));
    const abort = new AbortController();
    const read = reader.read.bind(reader);
    let reads = 0;
    t.mock.method(reader, 'read', async (start: number, end: number) => {
      reads++;
      const bytes = await read(start, end);
      if (bytes.equals(api.config)) abort.abort(new Error('left'));
      return bytes;
    });
    await assert.rejects(readArchiveIndex(reader, abort.signal), /left/);
    const readsUntilThen = reads;
    await readArchiveIndex(reader, NEVER);
    assert.ok(reads > 2 * readsUntilThen, 'it read on');
  });
});
