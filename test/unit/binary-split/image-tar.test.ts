import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { EnvelopeReader } from '../../../src/security/envelope-reader.ts';
import { readArchiveIndex, type ArchiveImage } from '../../../src/archive/archive-index.ts';
import { ImageTar } from '../../../src/binary-split/image-tar.ts';
import { planImageLoads, wholeLoad } from '../../../src/binary-split/image-load-plan.ts';
import { listTar } from '../../../src/archive/archive-index.ts';
import { makeImage, makeLayer, saveImages, seededBytes, type ArchiveOptions } from '../../../lab/images/image-maker.ts';
import { NEVER } from '../../../src/async/abort.ts';
import { useEncryptedFiles } from '../../support/encrypted-files.ts';

const encrypt = useEncryptedFiles();

const base = makeLayer({ 'base/model.bin': seededBytes('base', 400_000) });
const middle = makeLayer({ 'middle.bin': seededBytes('middle', 1000) });
const images = [
  makeImage({ tags: ['azaion/api:1', 'azaion/api:latest'], layers: [base, middle, makeLayer({ x: 'X' }), middle] }),
  makeImage({ tags: ['azaion/db:1'], layers: [base, makeLayer({ y: 'Y' })] }),
  makeImage({ layers: [] }),
];

async function openImages(options: ArchiveOptions = {}): Promise<{ archive: EnvelopeReader; found: ArchiveImage[] }> {
  const archive = await encrypt(saveImages(images, options));
  return { archive, found: await readArchiveIndex(archive, NEVER) };
}

function first<T>(items: readonly T[]): T {
  const [item] = items;
  assert.ok(item !== undefined);
  return item;
}

/** The whole tar, with the files of its layers as they are in the archive. */
async function join(tar: ImageTar, archive: EnvelopeReader): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (const layer of tar.layers) {
    const { start, length } = layer.file;
    pieces.push(tar.header(layer), await archive.read(start, start + length), tar.padding(layer));
  }
  return Buffer.concat([...pieces, tar.tail]);
}

describe('the tar of one image', () => {
  for (const options of [
    { layout: 'classic' },
    { layout: 'classic', linksRepeatedLayers: true, compression: 'gzip' },
    { layout: 'oci' },
    { layout: 'oci', compression: 'gzip' },
    { layout: 'oci', compression: 'zstd' },
  ] as const) {
    it(`has the length that was told, and is an archive with that image: ${JSON.stringify(options)}`, async () => {
      const { archive, found } = await openImages(options);
      for (const [at, image] of found.entries()) {
        const load = wholeLoad(image);
        const tar = await join(new ImageTar(load), archive);
        assert.equal(tar.length, new ImageTar(load).length);
        const reader = await encrypt(tar);
        const [read, ...others] = await readArchiveIndex(reader, NEVER);
        assert.ok(read);
        assert.deepEqual(others, []);
        assert.deepEqual([read.config.id, read.tags], [images[at]?.id, images[at]?.tags]);
        assert.deepEqual(read.configJson, images[at]?.config);
        for (const [index, layer] of read.layers.entries()) {
          const file = await reader.read(layer.file.start, layer.file.start + layer.file.length);
          const original = image.layers[index];
          assert.ok(original);
          const { start, length } = original.file;
          assert.ok(file.equals(await archive.read(start, start + length)), 'a layer is sent as it is');
        }
      }
    });
  }

  it('leaves out the layers that are not to be sent, and names them all the same', async () => {
    const { archive, found } = await openImages();
    const api = first(found);
    const db = found[1];
    assert.ok(db);
    for (const load of planImageLoads([api, db], { chainIds: new Set(), needsEveryLayer: false })) {
      const tar = await join(new ImageTar(load), archive);
      assert.equal(tar.length, new ImageTar(load).length);
      const reader = await encrypt(tar);
      const listing = await listTar(reader, NEVER);
      const sent = new Set(load.sentLayers.map(({ diffId }) => diffId));
      for (const { diffId } of load.layers) {
        const file = listing.find(`${diffId.slice(7)}.tar`);
        assert.equal(file !== undefined, sent.has(diffId));
      }
      const manifest = listing.file('manifest.json');
      const json = String(await reader.read(manifest.start, manifest.start + manifest.length));
      assert.deepEqual(JSON.parse(json), [
        {
          Config: `${load.id.slice(7)}.json`,
          RepoTags: load.tags,
          Layers: load.layers.map(({ diffId }) => `${diffId.slice(7)}.tar`),
        },
      ]);
    }
  });

  it('is the same each time it is made', async () => {
    const { archive, found } = await openImages();
    const load = wholeLoad(first(found));
    assert.ok((await join(new ImageTar(load), archive)).equals(await join(new ImageTar(load), archive)));
  });

  it('is no image to anybody without its tail', async () => {
    const { archive, found } = await openImages();
    const imageTar = new ImageTar(wholeLoad(first(found)));
    const tar = await join(imageTar, archive);
    const cut = tar.subarray(0, -imageTar.tail.length);
    assert.ok(!cut.includes('manifest.json') && !cut.includes('"diff_ids"') && !cut.includes('RepoTags'));
    assert.ok(imageTar.tail.includes('manifest.json') && imageTar.tail.includes('"diff_ids"'));
  });
});
