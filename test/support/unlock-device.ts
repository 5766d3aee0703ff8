import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Origin } from '../../lab/upstream/origin.ts';
import { encryptBuffer } from '../../src/security/envelope-cipher.ts';
import { deriveArchiveAesKey } from '../../src/security/key-derivation.ts';
import type { UnlockStatus } from '../../src/unlock/unlock-service.ts';
import { DockerCli } from '../../lab/services/docker-cli.ts';
import { EngineProxy } from '../../lab/faults/engine-proxy.ts';
import { FaultProxy } from '../../lab/faults/fault-proxy.ts';
import type { Image } from '../../lab/images/image-maker.ts';
import { noteSecrets } from '../../lab/test-environment.ts';
import { readSavedImages, type SavedImage } from './saved-images.ts';
import { TestLoader } from './test-loader.ts';
import { bodyOf, type JsonAnswer } from '../../lab/json-answer.ts';
import { eventually } from '../../lab/waiting.ts';
import { TaskClient } from '../../lab/task-client.ts';

const WAIT_MS = 60_000;

/**
 * A device that is to be unlocked: Loader process, stand-in Resource API behind a proxy that can hurt, and a proxy before
 * the test's own Docker engine.
 */
export class UnlockDevice {
  readonly origin: Origin;
  readonly apiProxy: FaultProxy;
  readonly engineProxy: EngineProxy;
  /** The engine itself, past the proxy. */
  readonly docker: DockerCli;
  readonly folder: string;
  readonly email = 'operator@example.com';
  readonly password: string;
  loader!: TestLoader;
  /** Whether the Loader runs as this device starts it. */
  #isPlain = true;
  readonly #env: Readonly<Record<string, string>>;

  private constructor(parts: {
    origin: Origin;
    apiProxy: FaultProxy;
    engineProxy: EngineProxy;
    docker: DockerCli;
    folder: string;
    password: string;
    env: Readonly<Record<string, string>>;
  }) {
    this.origin = parts.origin;
    this.apiProxy = parts.apiProxy;
    this.engineProxy = parts.engineProxy;
    this.docker = parts.docker;
    this.folder = parts.folder;
    this.password = parts.password;
    this.#env = parts.env;
  }

  /** `engineHost` is that of an engine which no other test uses. */
  static async start(engineHost: string, env: Readonly<Record<string, string>> = {}): Promise<UnlockDevice> {
    const folder = await mkdtemp(path.join(tmpdir(), 'loader-test-'));
    const password = `password-${randomBytes(12).toString('hex')}`;
    const origin = await Origin.start({
      folder: path.join(folder, 'origin'),
      users: [{ email: 'operator@example.com', password, role: 'Operator' }],
    });
    noteSecrets(password, origin.keyFragment.toString('hex'), origin.keyFragment.toString('base64'), origin.jwtSecret);
    const apiProxy = await FaultProxy.start(origin.api.url);
    const engineProxy = await EngineProxy.start(path.join(folder, 'engine.sock'), engineHost);
    const device = new UnlockDevice({
      origin,
      apiProxy,
      engineProxy,
      docker: new DockerCli(engineHost),
      folder,
      password,
      env: {
        RESOURCE_API_URL: apiProxy.url,
        MODEL_CACHE_DIR: path.join(folder, 'models'),
        STATE_DIR: path.join(folder, 'state'),
        IMAGES_PATH: path.join(folder, 'images', 'images.enc'),
        DOCKER_HOST: engineProxy.host,
        UPSTREAM_TIMEOUT_MS: '3000',
        STALL_TIMEOUT_MS: '3000',
        ENGINE_TIMEOUT_MS: '3000',
        ENGINE_STALL_TIMEOUT_MS: '30000', // Engines of tests share two cores with all else. Tests of this time set their own.
        ...env,
      },
    });
    await device.startLoader();
    return device;
  }

  get archivePath(): string {
    return path.join(this.folder, 'images', 'images.enc');
  }

  get stateFolder(): string {
    return path.join(this.folder, 'state');
  }

  get receiptPath(): string {
    return path.join(this.stateFolder, 'unlock-receipt.json');
  }

  /** For a Loader with an API key. */
  get tasks(): TaskClient {
    return new TaskClient(this.loader);
  }

  /** For a Loader that was stopped. `uid` is the user to run as. */
  async startLoader(env: Readonly<Record<string, string>> = {}, uid?: number): Promise<void> {
    this.#isPlain = Object.keys(env).length === 0 && uid === undefined;
    const loaderEnv = { ...this.#env, ...env };
    this.loader = await TestLoader.start({ env: loaderEnv, ...(uid === undefined ? {} : { uid }) });
  }

  /** The next Loader knows of nothing but what is on the disk and in the engine. */
  async restartLoader(env: Readonly<Record<string, string>> = {}, uid?: number): Promise<void> {
    await this.loader.stop();
    await this.startLoader(env, uid);
  }

  /** Puts an archive in place, at once, as an update would. It is sealed under the origin's key fragment. */
  async putArchive(tar: Buffer, keyFragment = this.origin.api.keyFragment): Promise<void> {
    await this.putEnvelope(encryptBuffer(tar, deriveArchiveAesKey(keyFragment)));
  }

  /** The same of bytes as they are. */
  async putEnvelope(envelope: Buffer): Promise<void> {
    const folder = path.dirname(this.archivePath);
    await mkdir(folder, { recursive: true });
    await writeFile(`${this.archivePath}.new`, envelope);
    await rename(`${this.archivePath}.new`, this.archivePath);
  }

  async post(password = this.password): Promise<JsonAnswer> {
    return await this.loader.startUnlock(this.email, password);
  }

  async status(): Promise<UnlockStatus> {
    return await this.loader.unlockStatus();
  }

  /** Starts a run and waits for its end. */
  async unlock(password?: string): Promise<UnlockStatus> {
    bodyOf(await this.post(password));
    return await this.ended();
  }

  /** Every status of the run that is under way, the last one included. */
  async events(): Promise<UnlockStatus[]> {
    return await Array.fromAsync(this.loader.watchUnlock(AbortSignal.timeout(WAIT_MS)));
  }

  async ended(): Promise<UnlockStatus> {
    const last = (await this.events()).at(-1);
    assert.ok(last !== undefined, 'the events ended without one');
    return last;
  }

  /** Polls until the run is in `state`. */
  async inState(...states: readonly string[]): Promise<UnlockStatus> {
    let status = await this.status();
    const isIn = async () => states.includes((status = await this.status()).state);
    await eventually(isIn, { timeoutMs: WAIT_MS, what: states.join(' or ') });
    return status;
  }

  /** The engine has these images, whole, each under all of its tags, and no other images. */
  async assertLoaded(images: readonly Image[]): Promise<void> {
    const ids = await this.docker.imageIds();
    const saved = await this.#savedInOrder(ids);
    // Where the engine's IDs are its own, the digest of the config is what tells the images apart.
    const idOf = new Map(saved.map(({ configDigest }, index) => [configDigest, ids[index]]));
    assert.deepEqual([...idOf.keys()].sort(), [...new Set(images.map(({ id }) => id))].sort());
    for (const { id, tags, diffIds } of images) {
      const layers = saved.find(({ configDigest }) => configDigest === id)?.layerDigests;
      assert.deepEqual(layers, diffIds, `the layers of ${id} are not what was packed`);
      for (const name of [idOf.get(id) ?? id, ...tags]) {
        const seen = await this.docker.inspect(name);
        assert.deepEqual([seen?.Id, seen?.RootFS.Layers], [idOf.get(id), diffIds], `${name} is not what was packed`);
      }
    }
  }

  /** Every image that the engine lists can be read back from it, config and layers. */
  async assertWhole(): Promise<void> {
    for (const id of await this.docker.imageIds()) {
      const { layerDigests } = await this.#saved(id);
      assert.deepEqual((await this.docker.inspect(id))?.RootFS.Layers, layerDigests, `${id} is damaged`);
    }
  }

  /** `sha256:` and the digest of an image's config, whatever the engine's own ID of it is. */
  async configDigestOf(ref: string): Promise<string> {
    return (await this.#saved(ref)).configDigest;
  }

  /** The IDs in the receipt. */
  async receiptIds(): Promise<string[]> {
    const { images } = JSON.parse(await readFile(this.receiptPath, 'utf8')) as { images: { id: string }[] };
    return images.map(({ id }) => id);
  }

  /** Nothing was left beside the archive, and nothing in the state folder but the receipt, the tasks' database and the lock. */
  async assertTidy(): Promise<void> {
    assert.deepEqual(await readdir(path.dirname(this.archivePath)), ['images.enc']);
    const state = await readdir(path.dirname(this.receiptPath)).catch(() => []);
    assert.deepEqual(
      state.filter((name) => !/^(unlock-receipt\.json|tasks\.db(-wal|-shm)?|state\.lock)$/.test(name)),
      [],
    );
  }

  /** Waits until the engine has an image. */
  async loadedAnything(): Promise<void> {
    await eventually(async () => (await this.docker.imageIds()).length > 0, {
      timeoutMs: WAIT_MS,
      what: 'a loaded image',
    });
  }

  async damageReceipt(): Promise<void> {
    const receipt = await readFile(this.receiptPath);
    await writeFile(this.receiptPath, receipt.subarray(0, receipt.length / 2));
  }

  /**
   * No images, no receipt, no faults, and a Loader without an environment of its own. When it has unlocked an archive
   * before, only another archive makes it run again, or a restart.
   */
  async clear(): Promise<void> {
    this.engineProxy.reset();
    this.apiProxy.reset();
    await this.docker.removeAll();
    await rm(this.receiptPath, { recursive: true, force: true });
    if (!this.#isPlain) await this.restartLoader();
    // A load that the last run broke off may have arrived meanwhile.
    this.engineProxy.reset();
  }

  /** All at once where the engine's IDs tell which is which: it writes a layer of several images once then. */
  async #savedInOrder(ids: readonly string[]): Promise<SavedImage[]> {
    if (ids.length === 0) return [];
    const saved = await readSavedImages(await this.docker.save(ids));
    const ordered = ids.flatMap((id) => saved.find(({ configDigest }) => configDigest === id) ?? []);
    return ordered.length === ids.length ? ordered : await Promise.all(ids.map((id) => this.#saved(id)));
  }

  async #saved(ref: string): Promise<SavedImage> {
    const [image, ...others] = await readSavedImages(await this.docker.save([ref]));
    assert.ok(image !== undefined && others.length === 0, `${ref} was not saved as one image`);
    return image;
  }

  async stop(): Promise<void> {
    await this.loader.stop('SIGKILL');
    await this.docker.close();
    await this.engineProxy.stop();
    await this.apiProxy.stop();
    await this.origin.stop();
    await rm(this.folder, { recursive: true, force: true });
  }
}
