import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { after, before, beforeEach, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { makeImage, saveImages, type ArchiveOptions, type Image } from '../../lab/images/image-maker.ts';
import { startDockerd, stopDockerd, type DockerdOptions } from '../../lab/services/services.ts';
import { testImages, testLayer } from './test-images.ts';
import { UnlockDevice } from './unlock-device.ts';

/** A kind of engine that the journeys of an unlock are tested with. */
export interface JourneyEngine {
  /** Of the engine that they start for themselves; it begins with `dockerd`. */
  readonly name: string;
  readonly options: DockerdOptions;
  /** Of the `skip` option of the tests. */
  readonly skip: string | false;
  /** What it takes beside what Docker 20.10 does. */
  readonly furtherLayouts: readonly (readonly [string, ArchiveOptions])[];
  /** It takes an image only with all of its layers. */
  readonly needsEveryLayer: boolean;
  /** Only the first journey, where the others take time without telling more: `npm run test:engines` has them all. */
  readonly isBrief: boolean;
}

/** Whether all journeys are tested with all engines. */
export const HAS_ALL_JOURNEYS = process.env['LOADER_TEST_ENGINES'] === 'all';

const LAYOUTS: JourneyEngine['furtherLayouts'] = [
  ['the classic layout', {}],
  ['the classic layout with links for shared layers', { linksRepeatedLayers: true }],
  ['the classic layout with compressed layers', { compression: 'gzip' }],
  ['the OCI layout', { layout: 'oci' }],
  ['the OCI layout with compressed layers', { layout: 'oci', compression: 'gzip' }],
  ['GNU long names', { nameStyle: 'gnu' }],
  ['PAX names', { nameStyle: 'pax', layout: 'oci' }],
  ['the manifest first', { putsManifestFirst: true }],
];
/** Of what the images of `testImages` are made of, in MB: small, since each image is unpacked in each test. */
const LAYER_MB = 0.2;

/** The journeys of an unlock that depend on what the engine is and does, with a real one. */
export function describeUnlockJourneys(title: string, kind: JourneyEngine): void {
  describe(title, { skip: kind.skip }, () => {
    let device: UnlockDevice;
    const images = testImages('one', LAYER_MB);
    const next = testImages('two', LAYER_MB);

    before(async () => {
      device = await UnlockDevice.start((await startDockerd(kind.name, { ...kind.options, isInMemory: true })).host);
    });

    beforeEach(async () => {
      await device.clear();
      await device.putArchive(saveImages(images));
    });

    after(async () => {
      await device.stop();
      await stopDockerd(kind.name);
    });

    async function unlockTo(expected: readonly Image[]): Promise<void> {
      const { state, error } = await device.unlock();
      assert.deepEqual({ state, error }, { state: 'ready', error: null });
      await device.assertLoaded(expected);
      await device.assertTidy();
    }

    /** Bytes that the engine was sent since the last reset of its proxy. */
    function sentBytes(): number {
      return device.engineProxy.loads.reduce((sum, bytes) => sum + bytes, 0);
    }

    /** The tags name `expected`; images of another release may be there too, without theirs. */
    async function assertTagged(expected: readonly Image[]): Promise<void> {
      for (const { id, tags } of expected) {
        for (const tag of tags) assert.equal(await device.configDigestOf(tag), id, `${tag} is of another release`);
      }
    }

    const layouts = [...LAYOUTS, ...kind.furtherLayouts];
    for (const [name, options] of kind.isBrief ? layouts.slice(0, 1) : layouts) {
      it(`brings every image into the engine from ${name}`, async () => {
        const some = images.slice(0, 3); // Two of them stand on the first.
        await device.putArchive(saveImages(some, options));
        await unlockTo(some);
      });
    }

    if (kind.isBrief) return;

    it('brings every image into the engine from an archive that is compressed as a whole', async () => {
      await device.putArchive(gzipSync(saveImages(images)));
      await unlockTo(images);
    });

    it('sends each layer once, or each image whole where the engine wants that', async () => {
      await device.unlock();
      const layers = images.flatMap((image) => image.layers);
      const wanted = kind.needsEveryLayer
        ? layers
        : [...new Map(layers.map((layer) => [layer.toString('latin1'), layer])).values()];
      const layerBytes = wanted.reduce((sum, layer) => sum + layer.length, 0);
      const sent = sentBytes();
      assert.ok(sent >= layerBytes && sent < layerBytes + 50_000, `${sent} bytes were sent of ${layerBytes}`);
    });

    it('is ready at once when it was, and after a restart, without the API', async () => {
      await unlockTo(images);
      device.apiProxy.fault = () => ({ kind: 'refuse' });
      device.engineProxy.reset();
      assert.deepEqual((await device.post()).body, { state: 'ready' });
      await device.restartLoader();
      await unlockTo(images);
      assert.deepEqual(device.engineProxy.loads, []);
      device.apiProxy.reset();
    });

    it('finds out by itself that all is there when the receipt is lost or damaged', async () => {
      await device.unlock();
      for (const damage of [() => rm(device.stateFolder, { recursive: true }), () => device.damageReceipt()]) {
        await damage();
        await device.restartLoader();
        device.engineProxy.reset();
        await unlockTo(images);
        assert.deepEqual(device.engineProxy.loads, []);
      }
    });

    it('sends nothing when another program has loaded the release', async () => {
      for (const options of [{}, { layout: 'oci' }] as const) {
        await device.docker.removeAll();
        await device.docker.load(saveImages(images, options));
        await device.restartLoader({ SERVICE_IMAGES: 'azaion-test/api, azaion-test/worker', API_VERSION: '1' });
        await rm(device.receiptPath, { force: true });
        await unlockTo(images);
        assert.deepEqual(device.engineProxy.loads, []);
      }
    });

    it('is not ready with an earlier release that has the same tags', async () => {
      await device.docker.load(saveImages(next));
      await device.restartLoader({ SERVICE_IMAGES: 'azaion-test/api, azaion-test/worker', API_VERSION: '1' });
      assert.equal((await device.unlock()).state, 'ready');
      await assertTagged(images);
    });

    it('is not ready with an earlier release that has the same tags and layers, and another config', async () => {
      const earlier = images.map(({ tags, layers }) =>
        makeImage({ tags, layers, config: { Env: ['RELEASE=earlier'] } }),
      );
      await device.docker.load(saveImages(earlier));
      assert.equal((await device.unlock()).state, 'ready');
      await assertTagged(images);
      // Among the images without a tag is that of the archive, and the receipt knows which one it is.
      const { id } = images.find(({ tags }) => tags.length === 0) ?? assert.fail();
      const named = await device.receiptIds();
      const digests = await Promise.all(named.map((name) => device.configDigestOf(name)));
      assert.ok(digests.includes(id), 'the receipt names another image');
    });

    it('loads another archive over the one that its receipt is of, running or restarted', async () => {
      await device.unlock();
      await device.putArchive(saveImages(next));
      assert.deepEqual((await device.post()).body, { state: 'authenticating' });
      assert.equal((await device.ended()).state, 'ready');
      await assertTagged(next);
      await device.putArchive(saveImages(images));
      await device.restartLoader({ SERVICE_IMAGES: 'azaion-test/api', API_VERSION: '1' });
      assert.equal((await device.unlock()).state, 'ready');
      await assertTagged(images);
    });

    it('is idle again when an image was removed, and the next POST loads that alone', async () => {
      await device.unlock();
      device.engineProxy.reset();
      await device.docker.remove('azaion-test/worker:1');
      const { progress, error } = await device.inState('idle');
      assert.deepEqual([progress, error], [null, null]);
      await unlockTo(images);
      assert.equal(device.engineProxy.loads.length, 1);
    });

    it('looks at the engine at each POST, even where that tells nothing of removals', async () => {
      device.engineProxy.hidesEvents = true;
      await device.restartLoader();
      await device.unlock();
      await device.docker.remove('azaion-test/worker:1');
      assert.equal((await device.status()).state, 'ready');
      await unlockTo(images);
    });

    it('puts a tag back that was moved to another image', async () => {
      await device.unlock();
      const other = makeImage({ tags: ['azaion-test/api:1'], layers: [testLayer('other', LAYER_MB)] });
      await device.docker.load(saveImages([other]));
      await device.inState('idle');
      assert.equal((await device.unlock()).state, 'ready');
      await assertTagged(images);
    });

    it('can be cancelled, leaves nothing broken, and goes on where it was', async () => {
      const never = new Promise(() => undefined);
      // The layers are longer than the sockets' buffers: a load that is sent to its end can't be taken back.
      const images = testImages('cancelled', 1.5);
      await device.putArchive(saveImages(images));
      // One image goes through; what is sent after it is held.
      device.engineProxy.fault = (index) =>
        index === 0 ? { kind: 'pass' } : { kind: 'hold', afterBytes: 100_000, until: never };
      await device.post();
      await device.loadedAnything();
      const answer = await device.loader.fetch('/unlock', { method: 'DELETE' });
      assert.deepEqual(await answer.json(), { state: 'error' });
      const { error, code } = await device.status();
      assert.deepEqual([error, code], ['The unlock was cancelled.', 'unlock_cancelled']);
      assert.deepEqual(device.loader.openFilesUnder(device.folder), []);
      await device.assertTidy();
      await device.assertWhole();

      const wholeBytes = images.flatMap(({ layers }) => layers).reduce((sum, layer) => sum + layer.length, 0);
      device.engineProxy.reset();
      await unlockTo(images);
      assert.ok(sentBytes() < wholeBytes, `${sentBytes()} bytes were sent, those of the first image among them`);
    });

    it('is mended by the next unlock when the engine is killed in mid-load', async () => {
      const never = new Promise(() => undefined);
      device.engineProxy.fault = (index) =>
        index === 0 ? { kind: 'pass' } : { kind: 'hold', afterBytes: 100_000, until: never };
      await device.post();
      await device.loadedAnything();
      process.kill((await startDockerd(kind.name)).pid, 'SIGKILL');
      assert.equal((await device.ended()).state, 'error');
      await startDockerd(kind.name);
      await device.assertWhole();
      device.engineProxy.reset();
      await unlockTo(images);
    });
  });
}
