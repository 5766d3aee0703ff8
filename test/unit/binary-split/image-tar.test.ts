import assert from 'node:assert/strict';
import { mkdtemp, open, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { EnvelopeReader } from '../../../src/security/envelope-reader.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { readArchiveIndex, type ArchiveImage } from '../../../src/archive/archive-index.ts';
import { ImageTar, type ImageTarOptions } from '../../../src/binary-split/image-tar.ts';
import { planImageLoads, wholeLoad, type ImageLoad } from '../../../src/binary-split/image-load-plan.ts';
import { listTar } from '../../../src/archive/tar-listing.ts';
import { makeImage, makeLayer, saveImages, seededBytes, type ArchiveOptions } from '../../../lab/images/image-maker.ts';
import { NEVER } from '../../../src/async/abort.ts';

const KEY = Buffer.alloc(32, 'k');
const INVALID = { name: 'LoaderError', code: 'archive_invalid' };

let folder = '';
const handles: FileHandle[] = [];

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-image-tar-'));
});

after(async () => {
  for (const handle of handles) await handle.close();
  await rm(folder, { recursive: true, force: true });
});

async function seal(plaintext: Buffer): Promise<EnvelopeReader> {
  const name = path.join(folder, String(handles.length));
  await writeFile(name, encryptBuffer(plaintext, KEY));
  const handle = await open(name);
  handles.push(handle);
  return new EnvelopeReader(handle, plaintext.length, KEY);
}

const base = makeLayer({ 'base/model.bin': seededBytes('base', 400_000) });
const middle = makeLayer({ 'middle.bin': seededBytes('middle', 1000) });
const images = [
  makeImage({ tags: ['azaion/api:1', 'azaion/api:latest'], layers: [base, middle, makeLayer({ x: 'X' }), middle] }),
  makeImage({ tags: ['azaion/db:1'], layers: [base, makeLayer({ y: 'Y' })] }),
  makeImage({ layers: [] }),
];

async function openImages(options: ArchiveOptions = {}): Promise<{ archive: EnvelopeReader; found: ArchiveImage[] }> {
  const archive = await seal(saveImages(images, options));
  return { archive, found: await readArchiveIndex(archive, NEVER) };
}

function first<T>(items: readonly T[]): T {
  const [item] = items;
  assert.ok(item !== undefined);
  return item;
}

/** Takes a tar until it ends or fails, in copies: chunks are released when the next is asked for. */
async function take(
  load: ImageLoad,
  options: Partial<ImageTarOptions> & Pick<ImageTarOptions, 'archive'>,
): Promise<{ tar: Buffer; error: unknown }> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of new ImageTar(load).chunks({
      beforeEnd: () => Promise.resolve(),
      onBytes: () => undefined,
      signal: NEVER,
      ...options,
    })) {
      chunks.push(Buffer.from(chunk));
    }
  } catch (error) {
    return { tar: Buffer.concat(chunks), error };
  }
  return { tar: Buffer.concat(chunks), error: undefined };
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
        const { tar, error } = await take(load, { archive });
        assert.equal(error, undefined);
        assert.equal(tar.length, new ImageTar(load).length);
        const reader = await seal(tar);
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
      const { tar, error } = await take(load, { archive });
      assert.equal(error, undefined);
      assert.equal(tar.length, new ImageTar(load).length);
      const reader = await seal(tar);
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
    assert.ok((await take(load, { archive })).tar.equals((await take(load, { archive })).tar));
  });

  it('tells how many bytes of layers were taken, no more and no less', async () => {
    const { archive, found } = await openImages({ layout: 'oci', compression: 'gzip' });
    const load = wholeLoad(first(found));
    let bytes = 0;
    await take(load, {
      archive,
      onBytes: (length) => {
        bytes += length;
      },
    });
    assert.equal(
      bytes,
      load.sentLayers.reduce((total, { file }) => total + file.length, 0),
    );
  });

  it('releases large chunks when the next is asked for, and none that is small', async () => {
    const { archive, found } = await openImages();
    const kept: Buffer[] = [];
    const lengths: number[] = [];
    const tar = new ImageTar(wholeLoad(first(found)));
    const options = { archive, beforeEnd: () => Promise.resolve(), onBytes: () => undefined, signal: NEVER };
    for await (const chunk of tar.chunks(options)) {
      kept.push(chunk);
      lengths.push(chunk.length);
    }
    const isReleased = kept.map((chunk, at) => chunk.length === 0 && (lengths[at] ?? 0) > 0);
    // Those that begin or end in the middle of what was decrypted at once are a part of it.
    for (const [at, length] of lengths.entries())
      assert.ok(!isReleased[at] || length === 128 * 1024, `${length} bytes`);
    assert.ok(isReleased.includes(true));
  });
});

describe('the end of the tar', () => {
  it('comes after all layers, when the one who is asked has agreed', async () => {
    const { archive, found } = await openImages();
    const load = wholeLoad(first(found));
    const layersLength = load.sentLayers.reduce((sum, { file }) => sum + 512 + Math.ceil(file.length / 512) * 512, 0);
    const agreed = Promise.withResolvers<undefined>();
    let asked = 0;
    let taken = 0;
    let takenWhenAsked = -1;
    const chunks = new ImageTar(load).chunks({
      archive,
      signal: NEVER,
      onBytes: () => undefined,
      beforeEnd: async () => {
        asked++;
        takenWhenAsked = taken;
        await agreed.promise;
      },
    });
    const taking = (async () => {
      for await (const chunk of chunks) taken += chunk.length;
    })();
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual([asked, takenWhenAsked, taken], [1, layersLength, layersLength]);
    agreed.resolve(undefined);
    await taking;
    assert.deepEqual([asked, taken], [1, new ImageTar(load).length]);
  });

  it('does not come when the one who is asked refuses', async () => {
    const { archive, found } = await openImages();
    const refusal = new Error('the base could not be loaded');
    const { tar, error } = await take(wholeLoad(first(found)), { archive, beforeEnd: () => Promise.reject(refusal) });
    assert.equal(error, refusal);
    assertNoImage(tar);
  });

  it('does not come when the signal aborts while it is asked', async () => {
    const { archive, found } = await openImages();
    const abort = new AbortController();
    const reason = new Error('cancelled');
    const { tar, error } = await take(wholeLoad(first(found)), {
      archive,
      signal: abort.signal,
      beforeEnd: () => {
        abort.abort(reason);
        return Promise.resolve();
      },
    });
    assert.equal(error, reason);
    assertNoImage(tar);
  });

  it('does not come when the signal aborts in a layer, which is then not sent on', async () => {
    const { archive, found } = await openImages();
    const abort = new AbortController();
    const reason = new Error('cancelled');
    let bytes = 0;
    const { tar, error } = await take(wholeLoad(first(found)), {
      archive,
      signal: abort.signal,
      onBytes: (length) => {
        bytes += length;
        abort.abort(reason);
      },
    });
    assert.equal(error, reason);
    assert.ok(bytes <= 128 * 1024);
    assertNoImage(tar);
  });

  for (const compression of ['none', 'gzip', 'zstd'] as const) {
    for (const isBlob of compression === 'zstd' ? [true] : [true, false]) {
      it(`does not come when a layer is wrong (${compression}${isBlob ? ', as a blob' : ''})`, async () => {
        const options: ArchiveOptions = isBlob ? { layout: 'oci', compression } : { compression };
        const plaintext = saveImages(images, options);
        const found = await readArchiveIndex(await seal(plaintext), NEVER);
        const load = wholeLoad(first(found));
        for (const layer of load.sentLayers) {
          const bad = Buffer.from(plaintext);
          // Its last byte: of a gzip file, of the length of what is in it.
          const at = layer.file.start + layer.file.length - 1;
          bad.writeUInt8(bad.readUInt8(at) ^ 1, at);
          const { tar, error } = await take(load, { archive: await seal(bad) });
          assert.deepEqual([(error as Error).name, (error as { code?: string }).code], [INVALID.name, INVALID.code]);
          assertNoImage(tar);
        }
      });
    }
  }

  it('does not come when the archive is cut in a layer', async () => {
    const { archive, found } = await openImages();
    const load = wholeLoad(first(found));
    const { start } = first(load.sentLayers).file;
    const cut = await seal(await archive.read(0, start + 1000));
    const handle = handles.at(-1);
    assert.ok(handle);
    const told = new EnvelopeReader(handle, archive.plaintextLength, KEY);
    const { tar, error } = await take(load, { archive: told });
    assert.equal((error as Error).name, 'EndOfFileError');
    assertNoImage(tar);
    const { error: beyond } = await take(load, { archive: cut });
    assert.ok(beyond instanceof RangeError);
  });
});

it('a tar that is left early leaves its archive free to be closed', async () => {
  const plaintext = saveImages(images, { compression: 'gzip' });
  const name = path.join(folder, 'left');
  await writeFile(name, encryptBuffer(plaintext, KEY));
  const handle = await open(name);
  const archive = new EnvelopeReader(handle, plaintext.length, KEY);
  const load = wholeLoad(first(await readArchiveIndex(archive, NEVER)));
  const chunks = new ImageTar(load).chunks({
    archive,
    signal: NEVER,
    onBytes: () => undefined,
    beforeEnd: () => Promise.resolve(),
  });
  await chunks.next();
  await chunks.next();
  await chunks.return();
  await handle.close();
});

/** Without its config and manifest, no engine makes an image of it. */
function assertNoImage(tar: Buffer): void {
  assert.ok(!tar.includes('manifest.json') && !tar.includes('"diff_ids"') && !tar.includes('RepoTags'));
}
