import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { DockerCli } from '../../../lab/services/docker-cli.ts';
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
import { DOCKER_HOST, DOCKER_SKIP } from '../../../lab/test-environment.ts';
import { sha256 } from '../../../lab/sha256.ts';

/** What Docker 20.10 loads, and all later ones. */
const LOADABLE: readonly ArchiveOptions[] = [
  { layout: 'classic' },
  { layout: 'classic', linksRepeatedLayers: true },
  { layout: 'classic', linksRepeatedLayers: true, compression: 'gzip' },
  { layout: 'classic', putsManifestFirst: true },
  { layout: 'classic', linksRepeatedLayers: true, nameStyle: 'gnu' },
  { layout: 'classic', linksRepeatedLayers: true, nameStyle: 'pax' },
  { layout: 'oci' },
  { layout: 'oci', compression: 'gzip' },
  { layout: 'oci', putsManifestFirst: true },
  { layout: 'oci', nameStyle: 'gnu' },
  { layout: 'oci', nameStyle: 'pax' },
];

/** Three images over one base: with two tags and a layer that comes twice, with one tag, with none. */
function makeImages(): Image[] {
  const name = randomUUID(); // The engine may have images of other tests.
  const base = makeLayer({ 'base/model.bin': seededBytes('base', 300_000), 'base/readme': 'base' });
  const empty = makeLayer({});
  const top = makeLayer({ 'app/main.bin': seededBytes(name, 5000), [`${'long/'.repeat(30)}name`]: 'short' });
  const config = { Labels: { name }, Cmd: ['/app/main.bin'] };
  return [
    makeImage({ tags: [`azaion/${name}:1.2.3`, `${name}:latest`], layers: [base, empty, top, empty], config }),
    makeImage({ tags: [`localhost:5000/azaion/${name}:2`], layers: [base, top], config, architecture: 'arm64' }),
    makeImage({ layers: [base], config }),
  ];
}

describe('an archive of the image maker, in a real engine', { skip: DOCKER_SKIP }, () => {
  let docker: DockerCli;
  const images = makeImages();
  const ids = images.map(({ id }) => id);
  before(async () => {
    docker = new DockerCli(DOCKER_HOST ?? '');
    assert.ok(await docker.ping());
  });
  after(() => docker.close());

  async function presentIds(): Promise<string[]> {
    return (await docker.imageIds()).filter((id) => ids.includes(id));
  }

  async function removeImages(): Promise<void> {
    for (const id of ids) await docker.remove(id);
    assert.deepEqual(await presentIds(), []);
  }

  for (const options of LOADABLE) {
    it(`is loaded: ${JSON.stringify(options)}`, async () => {
      const words = await docker.load(saveImages(images, options));
      for (const tag of images.flatMap(({ tags }) => tags)) assert.ok(words.includes(`Loaded image: ${tag}`), tag);
      assert.deepEqual(await presentIds(), [...ids].sort());
      for (const image of images) {
        const seen = await docker.inspect(image.id);
        assert.deepEqual([...(seen?.RepoTags ?? [])].sort(), [...image.tags].sort());
        assert.deepEqual(seen?.RootFS.Layers, image.diffIds);
        assert.deepEqual([seen.Architecture, seen.Os], [image === images[1] ? 'arm64' : 'amd64', 'linux']);
        assert.deepEqual(seen.Config['Cmd'], ['/app/main.bin']);
        for (const tag of image.tags) assert.equal((await docker.inspect(tag))?.Id, image.id);
      }
      await removeImages();
    });
  }

  /** The engine says no, and has none of the images. */
  async function expectRefusal(hurt: (entry: TarEntry) => TarEntry[], words: RegExp): Promise<void> {
    const entries = archiveEntries(images, { layout: 'oci' });
    await assert.rejects(docker.load(tarArchive(entries.flatMap(hurt))), words);
    assert.deepEqual(await presentIds(), []);
  }

  it('is refused with a bad checksum', () =>
    expectRefusal((entry) => [{ ...entry, hasBadChecksum: entry.name === 'index.json' }], /invalid tar header/));

  it('is refused without the configuration of an image', () =>
    expectRefusal((entry) => (entry.name.endsWith(ids[0]?.slice(7) ?? '') ? [] : [entry]), /no such file/));

  it('is refused with an entry that claims more than there is', () =>
    expectRefusal((entry) => [entry.name === 'oci-layout' ? { ...entry, claimedSize: 2 ** 40 } : entry], /EOF/));

  it('is loaded without an end mark', async () => {
    await docker.load(tarArchive(archiveEntries(images), { hasEndMark: false }));
    assert.deepEqual(await presentIds(), [...ids].sort());
    await removeImages();
  });

  it('can be asked for what is not there', async () => {
    assert.equal(await docker.inspect(`azaion/${randomUUID()}:1`), undefined);
    await docker.remove(`azaion/${randomUUID()}:1`);
  });
});

describe('an archive of the image maker', () => {
  const images = makeImages();

  it('is the same for the same images', () => {
    const digests = [1, 2].map(() => sha256(saveImages(images, { layout: 'oci', compression: 'gzip' })));
    assert.equal(digests[0], digests[1]);
  });

  it('has manifest.json where it was asked for', () => {
    const names = (options: ArchiveOptions) => archiveEntries(images, options).map(({ name }) => name);
    for (const layout of ['classic', 'oci'] as const) {
      assert.equal(names({ layout, putsManifestFirst: true })[0], 'manifest.json');
      assert.deepEqual(names({ layout }), names({ layout }).sort());
    }
  });

  it('has a layer that is repeated once in the OCI layout, once and links in the classic one', () => {
    const base = images[2]?.layers[0];
    const copies = (options: ArchiveOptions) =>
      archiveEntries(images, options).filter(({ content }) => content === base).length;
    assert.equal(copies({ layout: 'oci' }), 1);
    assert.equal(copies({ linksRepeatedLayers: true }), 1);
    assert.equal(copies({}), 2); // The image of the base alone has it under another ID.
    const links = archiveEntries(images, { linksRepeatedLayers: true }).filter(({ type }) => type === 'symlink');
    assert.deepEqual(
      links.map(({ linkName }) => /^\.\.\/[0-9a-f]{64}\/layer\.tar$/.test(linkName ?? '')),
      [true, true, true],
    );
  });

  for (const compression of ['none', 'gzip', 'zstd'] as const) {
    it(`has blobs that are named after their digests, compression: ${compression}`, () => {
      const entries = archiveEntries(images, { layout: 'oci', compression });
      const contents = new Map(entries.map(({ name, content = '' }) => [name, Buffer.from(content)]));
      for (const [name, content] of contents) {
        if (/^blobs\/sha256\/./.test(name)) assert.equal(name, `blobs/sha256/${sha256(content)}`);
      }
      const manifest = JSON.parse(String(contents.get('manifest.json'))) as { Layers: string[] }[];
      const unpack = { none: (blob: Buffer) => blob, gzip: gunzipSync, zstd: zstdDecompressSync }[compression];
      const diffIds = manifest.map(({ Layers }) =>
        Layers.map((layer) => `sha256:${sha256(unpack(contents.get(layer) ?? Buffer.alloc(0)))}`),
      );
      assert.deepEqual(
        diffIds,
        images.map((image) => image.diffIds),
      );
    });
  }
});
