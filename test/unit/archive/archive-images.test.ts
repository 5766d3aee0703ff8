import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { chainIds, layerDigest, nameImages } from '../../../src/archive/archive-images.ts';
import { makeImage, makeLayer } from '../../../lab/images/image-maker.ts';

const INVALID = { name: 'LoaderError', code: 'archive_invalid' };
const HEX = 'c'.repeat(64);

describe('the images of a manifest', () => {
  const base = makeLayer({ base: 'b' });
  const image = makeImage({ layers: [base, makeLayer({ top: 't' })] });
  const named = { configPath: 'c.json', tags: ['a:1'], layerPaths: ['l.tar', `blobs/sha256/${HEX}`] };

  it('have the layers that manifest and config name, each upon those below it', () => {
    const [found, ...others] = nameImages([named], [image.config]);
    assert.deepEqual(others, []);
    assert.equal(found?.config.id, image.id);
    const chain = chainIds(image.diffIds);
    assert.deepEqual(found.layers, [
      { path: 'l.tar', diffId: image.diffIds[0], chainId: chain[0], sha256: undefined },
      { path: `blobs/sha256/${HEX}`, diffId: image.diffIds[1], chainId: chain[1], sha256: HEX },
    ]);
  });

  it('are one with the tags of both when they have one config', () => {
    const again = { ...named, configPath: 'd.json', tags: ['b:1', 'a:1'] };
    const found = nameImages([named, again], [image.config, image.config]);
    assert.deepEqual(
      found.map(({ tags }) => tags),
      [['a:1', 'b:1']],
    );
  });

  it('are refused when manifest and config disagree about the number of layers', () => {
    assert.throws(() => nameImages([{ ...named, layerPaths: ['l.tar'] }], [image.config]), {
      ...INVALID,
      message: /disagree about the number of layers/,
    });
  });

  it('are refused when they have more than 20,000 layers together', () => {
    const one = makeImage({ layers: Array.from({ length: 500 }, () => base) });
    const item = { ...named, layerPaths: one.layers.map(() => 'l.tar') };
    const images = (count: number) =>
      nameImages(
        Array.from({ length: count }, () => item),
        Array.from({ length: count }, () => one.config),
      );
    assert.equal(images(40).length, 1);
    assert.throws(() => images(41), { ...INVALID, message: /too many/ });
  });
});

describe('the digest that counts', () => {
  const diffId = `sha256:${'d'.repeat(64)}`;

  for (const compression of ['none', 'gzip', 'zstd'] as const) {
    it(`is that of the file where its path promises one (${compression})`, () => {
      assert.deepEqual(layerDigest({ diffId, sha256: HEX }, compression), { of: 'file', hex: HEX });
    });

    it(`is the diff ID where the path promises none (${compression})`, () => {
      const of = compression === 'none' ? 'file' : 'content';
      assert.deepEqual(layerDigest({ diffId, sha256: undefined }, compression), { of, hex: 'd'.repeat(64) });
    });
  }
});

describe('chain IDs', () => {
  const [a, b, c] = ['a', 'b', 'c'].map((letter) => `sha256:${letter.repeat(64)}`) as [string, string, string];

  it('are as the image-spec says: the first is the diff ID, each other the digest of the one below, a space and it', () => {
    // By: printf 'sha256:aaa... sha256:bbb...' | sha256sum, and so on.
    assert.deepEqual(chainIds([a, b, c]), [
      a,
      'sha256:ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c',
      'sha256:c1377126441fb2f5ec2c21ae2a60255331d639e830f0ee1b40a36e52d4c40588',
    ]);
  });

  it('are those of a known image', () => {
    const layers = [
      'sha256:8d3ac3489996423f53d6087c81180006263b79f206d3fdec9e66f0e27ceb8759',
      'sha256:8d3ac3489996423f53d6087c81180006263b79f206d3fdec9e66f0e27ceb8759',
    ];
    assert.deepEqual(chainIds(layers), [
      layers[0],
      'sha256:131b91b19b47ec50df80c734e95ff6a6d99aded4f60ef6c016271b5ad0e601f8',
    ]);
  });

  it('depend on all that is below, and on its order', () => {
    assert.notEqual(chainIds([a, b]).at(-1), chainIds([b, a]).at(-1));
    assert.notEqual(chainIds([a, a]).at(-1), chainIds([a]).at(-1));
    assert.deepEqual(chainIds([a, b]), chainIds([a, b, c]).slice(0, 2));
  });

  it('of no layers are none', () => assert.deepEqual(chainIds([]), []));
});
