import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LoaderError } from '../../../src/errors.ts';
import {
  archivePath,
  digestInPath,
  MAX_IMAGES,
  parseImageConfig,
  parseManifest,
} from '../../../src/archive/manifest.ts';
import { makeImage, makeLayer } from '../../../lab/images/image-maker.ts';
import { sha256 } from '../../../lab/sha256.ts';

const INVALID = { name: 'LoaderError', code: 'archive_invalid' };
const HEX = 'a1'.repeat(32);
const DIFF_ID = `sha256:${HEX}`;

function manifest(...items: readonly unknown[]): Buffer {
  return Buffer.from(JSON.stringify(items));
}

describe('manifest.json', () => {
  const sound = { Config: 'c.json', RepoTags: ['a:1', 'b:2'], Layers: ['x/layer.tar', './y//layer.tar'] };

  it('gives configs, tags and layers, in their order and by the one form of their paths', () => {
    assert.deepEqual(parseManifest(manifest(sound, { ...sound, Config: './d.json', RepoTags: [] })), [
      { configPath: 'c.json', tags: ['a:1', 'b:2'], layerPaths: ['x/layer.tar', 'y/layer.tar'] },
      { configPath: 'd.json', tags: [], layerPaths: ['x/layer.tar', 'y/layer.tar'] },
    ]);
  });

  it('may have null, or nothing, for no tags and no layers', () => {
    const none = { configPath: 'c.json', tags: [], layerPaths: [] };
    assert.deepEqual(
      parseManifest(manifest({ Config: 'c.json', RepoTags: null, Layers: null }, { Config: 'c.json' })),
      [none, none],
    );
  });

  it('may have more than is needed', () => {
    assert.equal(parseManifest(manifest({ ...sound, LayerSources: {}, Parent: 'x' })).length, 1);
  });

  for (const [what, item] of [
    ['no config', { RepoTags: [], Layers: [] }],
    ['an empty config', { ...sound, Config: '' }],
    ['a config that is no text', { ...sound, Config: 5 }],
    ['a config of 4097 characters', { ...sound, Config: 'c'.repeat(4097) }],
    ['tags that are no list', { ...sound, RepoTags: 'a:1' }],
    ['a tag that is no text', { ...sound, RepoTags: [null] }],
    ['an empty tag', { ...sound, RepoTags: [''] }],
    ['101 tags', { ...sound, RepoTags: Array.from({ length: 101 }, () => 'a:1') }],
    ['layers that are no list', { ...sound, Layers: { 0: 'x' } }],
    ['a layer that is no text', { ...sound, Layers: [1] }],
    ['an empty layer', { ...sound, Layers: [''] }],
    ['513 layers', { ...sound, Layers: Array.from({ length: 513 }, () => 'x') }],
    ['a config out of the archive', { ...sound, Config: '../c.json' }],
    ['a layer out of the archive', { ...sound, Layers: ['x', 'a/../../b'] }],
    ['a layer by its whole path', { ...sound, Layers: ['/x'] }],
    ['null for an image', null],
    ['text for an image', 'x'],
    ['a list for an image', [sound]],
  ] as const) {
    it(`is refused with ${what}`, () => assert.throws(() => parseManifest(manifest(sound, item)), INVALID));
  }

  it('takes as much as its limits say', () => {
    const most = {
      Config: 'c'.repeat(4096),
      RepoTags: Array.from({ length: 100 }, (_, at) => `t:${at}`),
      Layers: Array.from({ length: 512 }, (_, at) => `l${at}`),
    };
    const [image] = parseManifest(manifest(most));
    assert.deepEqual([image?.tags.length, image?.layerPaths.length], [100, 512]);
    assert.equal(parseManifest(manifest(...Array.from({ length: MAX_IMAGES }, () => sound))).length, MAX_IMAGES);
  });

  it('is refused with more images than that, however many', () => {
    for (const count of [MAX_IMAGES + 1, 10_000]) {
      const many = manifest(...Array.from({ length: count }, () => sound));
      assert.throws(() => parseManifest(many), { ...INVALID, message: new RegExp(`names ${count} images`) });
    }
  });

  for (const text of ['', '{', '[', 'null', '{}', '[]', '5', '"x"', '[{"Config":"c"', '\u0000', '[{}]x']) {
    it(`is refused as ${JSON.stringify(text)}`, () => assert.throws(() => parseManifest(Buffer.from(text)), INVALID));
  }

  it('is refused when it is no UTF-8: a damaged block must not become a name', () => {
    const json = manifest(sound);
    json[json.indexOf('a:1')] = 0xff;
    assert.throws(() => parseManifest(json), INVALID);
  });

  it('is refused without a word of its content', () => {
    for (const json of [Buffer.from('[{"Config": secret}]'), manifest({ ...sound, Layers: ['../secret'] })]) {
      assert.throws(
        () => parseManifest(json),
        (error) => error instanceof LoaderError && !`${error.message} ${String(error.cause)}`.includes('secret'),
      );
    }
  });
});

describe('an image config', () => {
  const image = makeImage({ layers: [makeLayer({ a: 'A' }), makeLayer({ b: 'B' })], architecture: 'arm64' });
  const path = `${image.id.slice(7)}.json`;
  const sound = { architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [DIFF_ID] } };

  function parse(config: unknown): ReturnType<typeof parseImageConfig> {
    return parseImageConfig(Buffer.from(JSON.stringify(config)), 'config.json');
  }

  it('gives ID, layers and platform', () => {
    assert.deepEqual(parseImageConfig(image.config, path), {
      id: image.id,
      diffIds: image.diffIds,
      architecture: 'arm64',
      os: 'linux',
      variant: undefined,
    });
    assert.equal(parse({ ...sound, variant: 'v8' }).variant, 'v8');
  });

  it('has no layers where it lists none', () => {
    assert.deepEqual(parse({ ...sound, rootfs: undefined }).diffIds, []);
    assert.deepEqual(parse({ ...sound, rootfs: null }).diffIds, []);
    assert.deepEqual(parse({ ...sound, rootfs: {} }).diffIds, []);
    assert.deepEqual(parse({ ...sound, rootfs: { diff_ids: null } }).diffIds, []);
  });

  it('has no variant that is no text', () => {
    for (const variant of [undefined, null, '', 8, {}]) assert.equal(parse({ ...sound, variant }).variant, undefined);
  });

  for (const place of [path, `blobs/sha256/${image.id.slice(7)}`, 'config.json', 'somewhere/else']) {
    it(`is named by its bytes, wherever it lies: ${place.slice(0, 20)}`, () =>
      assert.equal(parseImageConfig(image.config, place).id, image.id));
  }

  it('is refused when it does not match the digest in its path', () => {
    const hex = sha256('another');
    for (const place of [`${hex}.json`, `blobs/sha256/${hex}`]) {
      assert.throws(() => parseImageConfig(image.config, place), { ...INVALID, message: /does not match its digest/ });
    }
    for (let bit = 0; bit < 8 * image.config.length; bit += 61) {
      const bad = Buffer.from(image.config);
      bad.writeUInt8(bad.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      assert.throws(() => parseImageConfig(bad, path), INVALID, `bit ${bit}`);
    }
  });

  for (const [what, config] of [
    ['null', null],
    ['a list', []],
    ['text', 'x'],
    ['no architecture', { ...sound, architecture: undefined }],
    ['an empty architecture', { ...sound, architecture: '' }],
    ['no os', { ...sound, os: undefined }],
    ['an os that is no text', { ...sound, os: 1 }],
    ['a rootfs that is a list', { ...sound, rootfs: [] }],
    ['diff IDs that are no list', { ...sound, rootfs: { diff_ids: DIFF_ID } }],
    ['a diff ID that is no text', { ...sound, rootfs: { diff_ids: [1] } }],
    ['a diff ID without its algorithm', { ...sound, rootfs: { diff_ids: [HEX] } }],
    ['a diff ID of another algorithm', { ...sound, rootfs: { diff_ids: [`sha512:${HEX}`] } }],
    ['a diff ID that is too short', { ...sound, rootfs: { diff_ids: [DIFF_ID.slice(0, -1)] } }],
    ['a diff ID that is too long', { ...sound, rootfs: { diff_ids: [`${DIFF_ID}a`] } }],
    ['a diff ID in capitals', { ...sound, rootfs: { diff_ids: [`sha256:${HEX.toUpperCase()}`] } }],
    ['a diff ID with a line break', { ...sound, rootfs: { diff_ids: [`${DIFF_ID}\n`] } }],
    ['one bad diff ID of many', { ...sound, rootfs: { diff_ids: [DIFF_ID, DIFF_ID, '../x'] } }],
    ['513 layers', { ...sound, rootfs: { diff_ids: Array.from({ length: 513 }, () => DIFF_ID) } }],
  ] as const) {
    it(`is refused as, or with, ${what}`, () => assert.throws(() => parse(config), INVALID));
  }

  it('may have 512 layers', () => {
    assert.equal(
      parse({ ...sound, rootfs: { diff_ids: Array.from({ length: 512 }, () => DIFF_ID) } }).diffIds.length,
      512,
    );
  });
});

describe('a path in an archive', () => {
  for (const [given, form] of [
    ['a', 'a'],
    ['./a', 'a'],
    ['a/', 'a'],
    ['a//b', 'a/b'],
    ['a/./b', 'a/b'],
    ['a/../b', 'b'],
    ['a/b/../../c', 'c'],
    ['./././a', 'a'],
    ['.', ''],
    ['', ''],
    ['./', ''],
    ['a/..', ''],
    ['...', '...'],
    ['a/..b', 'a/..b'],
    [' a ', ' a '],
    ['a\\..\\b', 'a\\..\\b'],
  ] as const) {
    it(`has one form: ${JSON.stringify(given)}`, () => assert.equal(archivePath(given), form));
  }

  for (const given of [
    '..',
    '../a',
    'a/../..',
    'a/../../a',
    '/a',
    '/',
    '//a',
    '/a/../b',
    './../a',
    'a\0',
    '\0',
    'a/\0/b',
  ]) {
    it(`does not lead out of it: ${JSON.stringify(given)}`, () => assert.throws(() => archivePath(given), INVALID));
  }

  it('promises a digest as a blob or as a config', () => {
    assert.equal(digestInPath(`blobs/sha256/${HEX}`), HEX);
    assert.equal(digestInPath(`${HEX}.json`), HEX);
  });

  for (const place of [
    `${HEX}/layer.tar`,
    `${HEX}.tar`,
    HEX,
    `x/${HEX}.json`,
    `${HEX}.jsonx`,
    `x${HEX}.json`,
    `${HEX}xjson`,
    `blobs/sha512/${HEX}`,
    `blobs/sha256/${HEX}0`,
    `blobs/sha256/${HEX.slice(1)}`,
    `blobs/sha256/${HEX.toUpperCase()}`,
    `x/blobs/sha256/${HEX}`,
    `blobs/sha256/${HEX}\n`,
    'manifest.json',
    '',
  ]) {
    it(`promises none otherwise: ${JSON.stringify(place.replaceAll(HEX, '<hex>'))}`, () =>
      assert.equal(digestInPath(place), undefined));
  }
});
