import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { listTar, readArchiveIndex, type ArchiveImage } from '../../../src/archive/archive-index.ts';
import { NEVER } from '../../../src/async/abort.ts';
import { planImageLoads } from '../../../src/binary-split/image-load-plan.ts';
import { ImageLoadProgress } from '../../../src/binary-split/unlock-progress.ts';
import { ImageLoads, type ImageLoadsOptions } from '../../../src/binary-split/image-loads.ts';
import type { LayerProgress, LoadBody, SoughtImage } from '../../../src/docker/docker-engine.ts';
import { LoaderError } from '../../../src/errors.ts';
import { makeImage, makeLayer, saveImages, seededBytes } from '../../../lab/images/image-maker.ts';
import { useEncryptedFiles } from '../../support/encrypted-files.ts';

const TRAITS = { needsEveryLayer: false, identifiesByManifest: false };
const CANCELLED = new LoaderError('unlock_cancelled', 'The unlock was cancelled.');
const REFUSED = new LoaderError('engine_error', 'The Docker engine refused: no such layer.');

const base = makeLayer({ base: seededBytes('base', 400_000) });
const images = [
  makeImage({ tags: ['base:1'], layers: [base] }),
  makeImage({ tags: ['api:1'], layers: [base, makeLayer({ api: seededBytes('api', 300_000) })] }),
  makeImage({ tags: ['db:1'], layers: [base, makeLayer({ db: seededBytes('db', 200_000) })] }),
  makeImage({ tags: ['alone:1'], layers: [makeLayer({ alone: seededBytes('alone', 100_000) })] }),
];
const plaintext = saveImages(images);

let engine: Engine;
const encrypt = useEncryptedFiles();

beforeEach(() => {
  engine = new Engine();
});

/** One load as the engine has got it. */
interface Got {
  bytes: Buffer;
}

/** Takes tars as an engine does: an image is there when its whole tar has come and `reply` has resolved. */
class Engine {
  readonly loads: Got[] = [];
  readonly ids = new Set<string>();
  /** What it does between the end of a tar and its reply. `ids` are those of the images in the tar. */
  reply: (index: number, ids: readonly string[]) => Promise<void> = () => Promise.resolve();
  /** Is called with each chunk before the next one is asked for. */
  onChunk: (index: number, chunk: Buffer) => Promise<void> | void = () => undefined;
  peak = 0;
  #open = 0;

  async *load({ length, chunks }: LoadBody): AsyncGenerator<LayerProgress, void, undefined> {
    const index = this.loads.length;
    const got: Got = { bytes: Buffer.alloc(0) };
    this.loads.push(got);
    this.peak = Math.max(this.peak, ++this.#open);
    try {
      const pieces: Buffer[] = [];
      for await (const chunk of chunks) {
        pieces.push(Buffer.from(chunk));
        got.bytes = Buffer.concat(pieces);
        await this.onChunk(index, chunk);
      }
      assert.equal(got.bytes.length, length);
      const ids = images.filter(({ id }) => got.bytes.includes(`"Config":"${id.slice(7)}.json"`)).map(({ id }) => id);
      yield { layerId: 'a layer', current: 1 };
      await this.reply(index, ids);
      for (const id of ids) this.ids.add(id);
    } finally {
      this.#open--;
    }
  }

  findImage({ id }: SoughtImage): Promise<string | undefined> {
    return Promise.resolve(this.ids.has(id) ? id : undefined);
  }

  /** Whether a tar has come whole. */
  isImage(index: number): boolean {
    return this.loads[index]?.bytes.includes('manifest.json') ?? false;
  }
}

interface Run {
  readonly found: readonly ArchiveImage[];
  readonly progress: ImageLoadProgress;
  readonly outcome: Promise<void>;
}

async function start(options: Partial<ImageLoadsOptions> = {}, content = plaintext): Promise<Run> {
  const archive = options.archive ?? (await encrypt(content));
  const found = await readArchiveIndex(await encrypt(plaintext), NEVER);
  const loads = planImageLoads(found, { chainIds: new Set(), needsEveryLayer: false });
  const progress = new ImageLoadProgress();
  progress.plan(loads, { total: found.length, present: 0 });
  const imageLoads = new ImageLoads({
    archive,
    engine,
    traits: TRAITS,
    parallelism: 3,
    stallTimeoutMs: 5000,
    progress,
    signal: NEVER,
    ...options,
  });
  const outcome = imageLoads.run(loads);
  outcome.catch(() => undefined); // Awaited by the test.
  return { found, progress, outcome };
}

/** Lets everything go on that waits for nothing of the test. */
async function quiet(): Promise<void> {
  for (let count = -1, seen = 0; count < seen;) {
    count = seen;
    await sleep(30); // Turns of the event loop would be over before a busy disk has read a chunk.
    seen = engine.loads.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }
}

describe('loads that run side by side', () => {
  for (const parallelism of [1, 2, 3, 10]) {
    it(`bring every image, and no layer twice (${parallelism} at once)`, async () => {
      const { progress, outcome } = await start({ parallelism });
      await outcome;
      assert.deepEqual([...engine.ids].sort(), images.map(({ id }) => id).sort());
      let layers = 0;
      for (const { bytes } of engine.loads) {
        const listing = await listTar(await encrypt(bytes), NEVER);
        for (const diffId of new Set(images.flatMap(({ diffIds }) => diffIds))) {
          if (listing.find(`${diffId.slice(7)}.tar`) !== undefined) layers++;
        }
      }
      assert.equal(layers, 4);
      assert.ok(engine.peak <= parallelism * 5);
      const { bytesDone = 0, bytesTotal, imagesDone, percent } = progress.read() ?? {};
      assert.deepEqual([bytesDone, imagesDone, percent], [bytesTotal, 4, 99]);
    });
  }

  it('send the layers of what stands on another load meanwhile, and the end after it has ended', async () => {
    const replied = Promise.withResolvers<undefined>();
    engine.reply = (index) => (index === 0 ? replied.promise : Promise.resolve()).then(() => undefined);
    const { outcome } = await start();
    await quiet();
    assert.ok(engine.isImage(0), 'the base was not sent');
    for (const [index, name] of [
      [1, 'api'],
      [2, 'db'],
    ] as const) {
      const { bytes } = engine.loads[index] ?? { bytes: Buffer.alloc(0) };
      assert.ok(bytes.length > 200_000, `${name} was not sent but for its end`);
      assert.ok(!engine.isImage(index), `${name} has ended before its base`);
    }
    // They gave their slots back, since there are three and the fourth load goes by them.
    assert.ok(engine.isImage(3));
    replied.resolve(undefined);
    await outcome;
    assert.ok(engine.isImage(1) && engine.isImage(2));
  });

  it('send layers one load at a time', async () => {
    const held = Promise.withResolvers<undefined>();
    engine.onChunk = async (index, chunk) => {
      if (index === 0 && chunk.length > 100_000) await held.promise;
    };
    const { outcome } = await start();
    await quiet();
    assert.equal(engine.loads.length, 1);
    held.resolve(undefined);
    await outcome;
    assert.equal(engine.loads.length, 4);
  });

  it('release large chunks when the next is asked for, and no part of a larger one', async () => {
    const kept: { chunk: Buffer; length: number }[] = [];
    engine.onChunk = (_index, chunk) => {
      kept.push({ chunk, length: chunk.length });
    };
    const { outcome } = await start();
    await outcome;
    const released = kept.filter(({ chunk, length }) => length > 0 && chunk.length === 0);
    assert.ok(released.length > 0);
    for (const { length } of released) assert.equal(length, 128 * 1024);
  });
});

describe('a load that fails', () => {
  it('is not ended when a layer in it is wrong, nor is what stands on it', async () => {
    const bad = Buffer.from(plaintext);
    const at = bad.lastIndexOf(base) + base.length - 5;
    bad.writeUInt8(bad.readUInt8(at) ^ 1, at);
    for (let copy = bad.indexOf(base); copy !== -1; copy = bad.indexOf(base, copy + 1)) bad[copy + 5000] = 0xff;
    const { outcome } = await start({}, bad);
    await assert.rejects(outcome, { code: 'archive_invalid', message: /does not match its digest/ });
    assert.ok(engine.loads.length < 4, 'all loads began');
    assert.ok(!engine.loads.some((_load, index) => engine.isImage(index)));
    assert.deepEqual([...engine.ids], []);
  });

  it('is told once those under way have ended, and is the failure of what stands on it', async () => {
    const replied = Promise.withResolvers<undefined>();
    engine.reply = async (index) => {
      await replied.promise;
      if (index === 0) throw new LoaderError('engine_disk_full', 'The disk of the Docker engine is full.');
    };
    const { outcome } = await start();
    await quiet();
    let isOver = false;
    const over = outcome.catch(() => (isOver = true));
    await quiet();
    assert.equal(isOver, false);
    replied.resolve(undefined);
    await over;
    await assert.rejects(outcome, { code: 'engine_disk_full' });
    assert.ok(!engine.isImage(1) && !engine.isImage(2));
    assert.deepEqual([...engine.ids], [images[3]?.id]);
  });

  it('is repeated with every layer when the engine refuses a part, and its bytes are added', async () => {
    let refusals = 0;
    engine.reply = async (_index, ids) => {
      await Promise.resolve();
      if (ids.includes(images[1]?.id ?? '') && refusals++ === 0) throw REFUSED;
    };
    const { progress, outcome } = await start();
    await outcome;
    assert.deepEqual([refusals, engine.loads.length, engine.ids.size], [2, 5, 4]);
    const whole = engine.loads.at(-1)?.bytes ?? Buffer.alloc(0);
    assert.ok(whole.includes(base.subarray(1000, 2000)));
    const { bytesDone, bytesTotal } = progress.read() ?? {};
    assert.equal(bytesDone, bytesTotal);
  });

  it('is not repeated when it was sent whole', async () => {
    engine.reply = (index) => (index === 0 ? Promise.reject(REFUSED) : Promise.resolve());
    const { outcome } = await start();
    await assert.rejects(outcome, REFUSED);
    assert.ok(engine.loads.length <= 4);
    assert.equal(engine.ids.has(images[0]?.id ?? ''), false);
  });

  it('is one too when the engine reports success and has no image', async () => {
    engine.findImage = () => Promise.resolve(undefined);
    const { outcome } = await start();
    await assert.rejects(outcome, { code: 'engine_image_missing', message: /base:1/ });
  });
});

describe('loads that are cancelled', () => {
  it('before they begin do not begin', async () => {
    const { outcome } = await start({ signal: AbortSignal.abort(CANCELLED) });
    await assert.rejects(outcome, CANCELLED);
    assert.equal(engine.loads.length, 0);
  });

  it('in a layer send nothing more of it', async () => {
    const abort = new AbortController();
    engine.onChunk = (_index, chunk) => {
      if (chunk.length > 100_000) abort.abort(CANCELLED);
    };
    const { outcome } = await start({ signal: abort.signal });
    await assert.rejects(outcome, CANCELLED);
    assert.equal(engine.loads.length, 1);
    assert.ok((engine.loads[0]?.bytes.length ?? 0) <= 512 + 128 * 1024);
  });

  it('while they wait for their base send no end, and the base ends', async () => {
    const abort = new AbortController();
    const replied = Promise.withResolvers<undefined>();
    engine.reply = (index) => (index === 0 ? replied.promise : Promise.resolve()).then(() => undefined);
    const { outcome } = await start({ signal: abort.signal });
    await quiet();
    abort.abort(CANCELLED);
    await quiet();
    replied.resolve(undefined);
    await assert.rejects(outcome, CANCELLED);
    assert.ok(!engine.isImage(1) && !engine.isImage(2));
    assert.ok(engine.ids.has(images[0]?.id ?? ''));
  });
});
