import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { chainIds } from '../../../src/archive/archive-images.ts';
import type { ArchiveImage, ArchiveLayer } from '../../../src/archive/archive-index.ts';
import {
  planImageLoads,
  sentLength,
  SHARED_LAYERS_LABEL,
  wholeLoad,
  withEveryLayer,
  type ImageLoad,
} from '../../../src/binary-split/image-load-plan.ts';
import { sha256 } from '../../../lab/sha256.ts';

const NOTHING = { chainIds: new Set<string>(), needsEveryLayer: false };

/** An image of these layers, which are one letter or word each; a layer's length is `lengths` of it, or 100. */
function image(name: string, layers: readonly string[], lengths: Readonly<Record<string, number>> = {}): ArchiveImage {
  const diffIds = layers.map(diffIdOf);
  const chain = chainIds(diffIds);
  const configJson = Buffer.from(JSON.stringify({ name, diffIds }));
  return {
    config: { id: digest(configJson), diffIds, architecture: 'amd64', os: 'linux', variant: undefined },
    configJson,
    tags: [name],
    layers: layers.map((layer, at): ArchiveLayer => ({
      diffId: diffIds[at] ?? '',
      chainId: chain[at] ?? '',
      file: { start: 512 * layer.charCodeAt(0), length: lengths[layer] ?? 100 },
      compression: 'none',
      sha256: undefined,
    })),
  };
}

function digest(content: Buffer | string): string {
  return `sha256:${sha256(content)}`;
}

function diffIdOf(layer: string): string {
  return digest(`layer ${layer}`);
}

function having(...stacks: readonly (readonly string[])[]): { chainIds: Set<string>; needsEveryLayer: boolean } {
  return { chainIds: new Set(stacks.flatMap((stack) => chainIds(stack.map(diffIdOf)))), needsEveryLayer: false };
}

const ALPHABET = 'abcdefghij';
const LETTERS = new Map(Array.from(ALPHABET, (letter) => [diffIdOf(letter), letter]));

/** A plan in short: name, layers, what is sent of them, and what it waits for. */
function show(loads: readonly ImageLoad[]): string[] {
  const nameOf = ({ isShared, tags, layers }: ImageLoad) => (isShared ? `(${lettersOf(layers)})` : (tags[0] ?? ''));
  return loads.map((load) => {
    const after = load.after === undefined ? '' : ` after ${nameOf(load.after)}`;
    return `${nameOf(load)} sends ${lettersOf(load.sentLayers) || 'nothing'}${after}`;
  });
}

function lettersOf(layers: readonly ArchiveLayer[]): string {
  return layers.map(({ diffId }) => LETTERS.get(diffId) ?? '?').join('');
}

describe('the plan of loads', () => {
  it('of nothing is nothing', () => assert.deepEqual(planImageLoads([], NOTHING), []));

  it('sends a single image whole', () => {
    const [load, ...others] = planImageLoads([image('x', ['a', 'b', 'c'])], NOTHING);
    assert.deepEqual(show(load === undefined ? [] : [load]), ['x sends abc']);
    assert.deepEqual(others, []);
    assert.equal(load?.isShared, false);
  });

  it('sends a base that two images stand on once, before them', () => {
    const plan = planImageLoads([image('x', ['a', 'b', 'c']), image('y', ['a', 'b', 'd'])], NOTHING);
    assert.deepEqual(show(plan), ['(ab) sends ab', 'x sends c after (ab)', 'y sends d after (ab)']);
  });

  it('takes an image that is the base of others for the base', () => {
    const plan = planImageLoads(
      [image('x', ['a', 'b', 'c']), image('base', ['a', 'b']), image('y', ['a', 'b', 'd'])],
      NOTHING,
    );
    assert.deepEqual(show(plan), ['base sends ab', 'x sends c after base', 'y sends d after base']);
  });

  it('stacks shared layers on shared layers', () => {
    const plan = planImageLoads(
      [image('w', ['a', 'b', 'c']), image('x', ['a', 'b', 'd']), image('y', ['a', 'e']), image('z', ['a', 'f'])],
      NOTHING,
    );
    assert.deepEqual(show(plan), [
      '(a) sends a',
      '(ab) sends b after (a)',
      'y sends e after (a)',
      'z sends f after (a)',
      'w sends c after (ab)',
      'x sends d after (ab)',
    ]);
  });

  it('sends no layer that the engine has', () => {
    const images = [image('x', ['a', 'b', 'c']), image('y', ['a', 'b', 'd'])];
    assert.deepEqual(show(planImageLoads(images, having(['a']))), [
      '(ab) sends b',
      'x sends c after (ab)',
      'y sends d after (ab)',
    ]);
    assert.deepEqual(show(planImageLoads(images, having(['a', 'b']))), ['x sends c', 'y sends d']);
    assert.deepEqual(show(planImageLoads(images, having(['a', 'b', 'c']))), ['y sends d', 'x sends nothing']);
  });

  it('sends a layer that the engine has only upon another one', () => {
    assert.deepEqual(show(planImageLoads([image('x', ['a', 'b'])], having(['b', 'a']))), ['x sends ab']);
    assert.deepEqual(show(planImageLoads([image('x', ['a', 'b'])], having(['c', 'b']))), ['x sends ab']);
  });

  it('sends a config and nothing else when all layers are there, but not the image', () => {
    assert.deepEqual(show(planImageLoads([image('x', ['a', 'b'])], having(['a', 'b', 'c']))), ['x sends nothing']);
    assert.deepEqual(show(planImageLoads([image('none', [])], NOTHING)), ['none sends nothing']);
  });

  it('sends the layers of two images with the same ones with the first', () => {
    const plan = planImageLoads([image('x', ['a', 'b']), image('y', ['a', 'b'])], NOTHING);
    assert.deepEqual(show(plan), ['x sends ab', 'y sends nothing after x']);
  });

  it('sends a layer that comes twice in an image once, and lists it twice', () => {
    const [load] = planImageLoads([image('x', ['a', 'b', 'a'])], NOTHING);
    assert.ok(load);
    assert.deepEqual([lettersOf(load.sentLayers), lettersOf(load.layers)], ['ab', 'aba']);
    assert.deepEqual(show(planImageLoads([image('x', ['a', 'b', 'a'])], having(['a', 'b']))), ['x sends a']);
  });

  it('leaves layers of the same content upon different ones where they are', () => {
    const plan = planImageLoads([image('x', ['a', 'c']), image('y', ['b', 'c'])], NOTHING);
    assert.deepEqual(show(plan), ['x sends ac', 'y sends bc']);
  });

  it('sends every image whole to an engine that needs every layer, the largest first', () => {
    const images = [image('x', ['a', 'b']), image('y', ['a', 'b', 'c']), image('z', ['d'])];
    const plan = planImageLoads(images, { ...having(['a', 'b']), needsEveryLayer: true });
    assert.deepEqual(show(plan), ['y sends abc', 'x sends ab', 'z sends d']);
  });

  it('begins with what others wait for, and then with the largest', () => {
    const lengths = { a: 1, c: 10, d: 30, e: 20 };
    const images = [image('x', ['a', 'c'], lengths), image('y', ['a', 'd'], lengths), image('z', ['e'], lengths)];
    assert.deepEqual(show(planImageLoads(images, NOTHING)), [
      '(a) sends a',
      'y sends d after (a)',
      'z sends e',
      'x sends c after (a)',
    ]);
  });
});

describe('an image of shared layers', () => {
  const images = [image('x', ['a', 'b', 'c']), image('y', ['a', 'b', 'd'])];
  const [shared] = planImageLoads(images, NOTHING);
  assert.ok(shared);

  it('is named by its config, which has its layers, the platform and the label', () => {
    assert.equal(shared.id, digest(shared.configJson));
    assert.deepEqual(JSON.parse(String(shared.configJson)), {
      created: '1970-01-01T00:00:00Z',
      architecture: 'amd64',
      os: 'linux',
      config: { Labels: { [SHARED_LAYERS_LABEL]: 'true' } },
      rootfs: { type: 'layers', diff_ids: ['a', 'b'].map(diffIdOf) },
    });
    assert.deepEqual([shared.tags, shared.isShared], [[], true]);
  });

  it('is the same whatever stands on it, so that an unlock that is repeated finds it', () => {
    const [again] = planImageLoads([image('v', ['a', 'b', 'e']), image('w', ['a', 'b', 'f'])], having(['a']));
    assert.equal(again?.id, shared.id);
  });

  it('has the variant of the platform', () => {
    const armed = images.map((one) => ({ ...one, config: { ...one.config, variant: 'v8' } }));
    const config = JSON.parse(String(planImageLoads(armed, NOTHING)[0]?.configJson)) as { variant: string };
    assert.equal(config.variant, 'v8');
  });
});

describe('a load', () => {
  it('with every layer stands on nothing', () => {
    const plan = planImageLoads([image('x', ['a', 'b', 'a', 'c']), image('y', ['a', 'b', 'd'])], NOTHING);
    const part = plan.find(({ tags }) => tags[0] === 'x');
    assert.ok(part?.after);
    const whole = withEveryLayer(part);
    assert.deepEqual([lettersOf(whole.sentLayers), whole.after, whole.id], ['abc', undefined, part.id]);
    assert.deepEqual(wholeLoad(image('x', ['a', 'b', 'a', 'c'])), whole);
  });

  it('sends as many bytes as its layers have', () => {
    assert.equal(sentLength(wholeLoad(image('x', ['a', 'b', 'a'], { a: 5, b: 7 }))), 12);
    assert.equal(sentLength({ sentLayers: [] }), 0);
  });
});

/** Takes loads as an engine does, and knows which layers and images it has. */
class Engine {
  readonly chains: Set<string>;
  readonly images = new Set<string>();

  constructor(chains: ReadonlySet<string>) {
    this.chains = new Set(chains);
  }

  load({ id, layers, sentLayers }: ImageLoad): void {
    const sent = new Set(sentLayers.map(({ diffId }) => diffId));
    for (const { chainId, diffId } of layers) {
      assert.ok(this.chains.has(chainId) || sent.has(diffId), 'a layer is neither there nor sent');
    }
    for (const { chainId } of layers) this.chains.add(chainId);
    this.images.add(id);
  }
}

/** Mulberry32: the same numbers for the same seed, from 0 to below 1. */
function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Stacks that often begin alike, as images that are built upon each other do. */
function randomStacks(random: () => number, count: number): string[][] {
  const stacks: string[][] = [];
  const letters = ALPHABET.slice(0, 2 + Math.floor(random() * 9));
  for (let made = 0; made < count; made++) {
    const parent = stacks[Math.floor(random() * stacks.length)] ?? [];
    const stack = random() < 0.7 ? parent.slice(0, Math.ceil(random() * parent.length)) : [];
    const more = Math.floor(random() * 4);
    for (let at = 0; at < more; at++) stack.push(letters[Math.floor(random() * letters.length)] ?? 'a');
    stacks.push(stack);
  }
  return stacks;
}

describe('3,000 random plans', () => {
  for (let group = 0; group < 10; group++) {
    it(`bring every image with each layer sent once, in an order that never waits for itself (${group})`, () => {
      for (let seed = group * 300; seed < (group + 1) * 300; seed++) checkPlan(seed);
    });
  }
});

function checkPlan(seed: number): void {
  const random = seededRandom(seed);
  const lengths = Object.fromEntries(Array.from(ALPHABET, (letter) => [letter, Math.floor(random() * 1000)]));
  const stacks = randomStacks(random, 1 + Math.floor(random() * 10));
  const images = stacks.map((stack, at) => image(`i${at}`, stack, lengths));
  const there = [
    ...randomStacks(random, Math.floor(random() * 3)),
    ...stacks.filter(() => random() < 0.15).map((stack) => stack.slice(0, Math.ceil(random() * stack.length))),
  ];
  const inventory = { ...having(...there), needsEveryLayer: random() < 0.1 };
  const plan = planImageLoads(images, inventory);
  const about = `seed ${seed}: ${JSON.stringify(show(plan))}`;

  const engine = new Engine(inventory.chainIds);
  const placed = new Map(plan.map((load, at) => [load, at]));
  const sentChains = new Set<string>();
  for (const [at, load] of plan.entries()) {
    if (load.after !== undefined)
      assert.ok((placed.get(load.after) ?? Infinity) < at, `${about}: waits for a later one`);
    const sent = new Set(load.sentLayers.map(({ diffId }) => diffId));
    assert.equal(sent.size, load.sentLayers.length, `${about}: one file is sent twice in a load`);
    if (!inventory.needsEveryLayer) {
      for (const { chainId } of load.sentLayers) {
        assert.ok(!inventory.chainIds.has(chainId), `${about}: a layer is sent that was there`);
        assert.ok(!sentChains.has(chainId), `${about}: a layer is sent twice`);
        sentChains.add(chainId);
      }
      // With nothing but what it waits for, so that what happens to go first does not help it.
      const alone = new Engine(inventory.chainIds);
      for (const below of waysDown(load)) alone.load(below);
      alone.load(load);
    }
    engine.load(load);
  }
  for (const { config, tags } of images) {
    assert.equal(plan.filter(({ id, isShared }) => id === config.id && !isShared).length, 1, `${about}: ${tags[0]}`);
    assert.ok(engine.images.has(config.id), about);
  }
  assert.equal(plan.filter(({ isShared }) => !isShared).length, images.length, about);
  for (const load of plan.filter(({ isShared }) => isShared)) checkShared(load, images, inventory.chainIds, about);
  checkOrder(plan, about);
}

/** What `load` waits for, the lowest first. */
function waysDown(load: ImageLoad): ImageLoad[] {
  const below: ImageLoad[] = [];
  for (let next = load.after; next !== undefined; next = next.after) below.unshift(next);
  return below;
}

/** Shared layers stand only where several images stand on them, and no image is just them. */
function checkShared(
  { layers, sentLayers }: ImageLoad,
  images: readonly ArchiveImage[],
  there: ReadonlySet<string>,
  about: string,
): void {
  const topChain = layers.at(-1)?.chainId ?? '';
  const users = images.filter((one) => one.layers.some(({ chainId }) => chainId === topChain));
  assert.ok(users.length >= 2, `${about}: ${users.length} images stand on shared layers`);
  assert.ok(sentLayers.length > 0 && !there.has(topChain), `${about}: shared layers that bring nothing`);
  assert.ok(!images.some((one) => one.layers.at(-1)?.chainId === topChain), `${about}: an image is just that`);
}

/** What others wait for comes before all else, and of that the largest come first. */
function checkOrder(plan: readonly ImageLoad[], about: string): void {
  const awaited = new Set(plan.map(({ after }) => after));
  const firstFree = plan.findIndex((load) => !awaited.has(load));
  const free = plan.slice(firstFree);
  assert.ok(!free.some((load) => awaited.has(load)), about);
  const lengths = free.map(sentLength);
  assert.deepEqual(
    lengths,
    lengths.toSorted((a, b) => b - a),
    about,
  );
}
