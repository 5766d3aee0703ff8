import { randomBytes } from 'node:crypto';
import { ConfigError, loadEngineConfig, type EngineConfig } from '../src/config/config.ts';
import { DockerEngine } from '../src/docker/docker-engine.ts';
import { describeDockerHost } from '../src/docker/docker-host.ts';
import { hasErrorCode, LoaderError } from '../src/errors.ts';
import { makeImage, makeLayer, saveImages, type Image } from '../lab/images/image-maker.ts';

/** Bytes of random content: of the layer that all images stand on, and of each image's own. */
const BASE_LENGTH = 32_000_000;
const OWN_LENGTHS = {
  'azaion-demo/api:1': 8_000_000,
  'azaion-demo/detector:1': 16_000_000,
  'azaion-demo/ui:1': 4_000_000,
};
const DEMO_TAGS = Object.keys(OWN_LENGTHS);
const CALL_TIMEOUT_MS = 5_000;
/** For the removal of all images, in ms. */
const CLEAR_TIMEOUT_MS = 20_000;
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386' };

/** The Docker engine that the demo brings images into. It removes these again, and no others. */
export class DemoEngine {
  readonly name: string;
  readonly #engine: DockerEngine;
  #images: readonly Image[] | undefined;

  private constructor(engine: DockerEngine, name: string) {
    this.#engine = engine;
    this.name = name;
  }

  /** The engine that DOCKER_HOST names; where the demo can't use it, a sentence that says why and what to do. */
  static async find(signal: AbortSignal): Promise<DemoEngine | string> {
    let config: EngineConfig;
    try {
      config = loadEngineConfig();
    } catch (error) {
      if (error instanceof ConfigError) return `${error.problems.join('; ')}.`;
      throw error;
    }
    const name = describeDockerHost(config.dockerHost);
    const engine = new DockerEngine({ host: config.dockerHost, timeoutMs: CALL_TIMEOUT_MS });
    const reason = await whyUnusable(engine, name, signal);
    if (reason === undefined) return new DemoEngine(engine, name);
    await engine.close();
    return reason;
  }

  /** Made when they are first asked for: each time others. */
  get images(): readonly Image[] {
    this.#images ??= makeImages();
    return this.#images;
  }

  /** Bytes of all layers, each counted once. */
  get distinctLength(): number {
    const layers = new Map(
      this.images.flatMap(({ diffIds, layers }) => layers.map((layer, at) => [diffIds[at], layer])),
    );
    return layers.values().reduce((total, layer) => total + layer.length, 0);
  }

  /** All images as `docker save` writes them. */
  createTar(): Buffer {
    return saveImages(this.images, { layout: 'oci' });
  }

  /** @throws Error that names the image that the engine does not have */
  async assertLoaded(signal: AbortSignal): Promise<void> {
    for (const { tags, diffIds } of this.images) {
      for (const tag of tags) {
        const found = await this.#engine.inspectImage(tag, signal);
        if (found?.diffIds.join() !== diffIds.join()) throw new Error(`the engine does not have ${tag}`);
      }
    }
  }

  /**
   * Removes the images of the demo, also after a failure: those that begin with the demo's own base layer. The layer is
   * random, so no other image has it.
   */
  async clear(): Promise<void> {
    const signal = AbortSignal.timeout(CLEAR_TIMEOUT_MS);
    const base = this.#images?.[0]?.diffIds[0];
    try {
      for (const id of base === undefined ? [] : await this.#engine.listImages(signal)) {
        const image = await this.#engine.inspectImage(id, signal);
        if (image?.diffIds[0] === base) await this.#engine.removeImage(id, signal);
      }
    } catch (error) {
      throw new Error(`images of the demo may still be in the engine: docker rmi ${DEMO_TAGS.join(' ')}`, {
        cause: error,
      });
    } finally {
      await this.#engine.close();
    }
  }
}

async function whyUnusable(engine: DockerEngine, name: string, signal: AbortSignal): Promise<string | undefined> {
  try {
    await engine.connect(signal);
    for (const tag of DEMO_TAGS) {
      if ((await engine.inspectImage(tag, signal)) === undefined) continue;
      return `The Docker engine at ${name} has ${tag} already, maybe of a demo that was killed: docker rmi ${DEMO_TAGS.join(' ')}`;
    }
    return undefined;
  } catch (error) {
    signal.throwIfAborted();
    if (hasErrorCode(error, 'engine_unreachable')) {
      return `No Docker engine at ${name}: get one with apt-get install docker.io, or set DOCKER_HOST.`;
    }
    if (error instanceof LoaderError) return error.message;
    throw error;
  }
}

function makeImages(): Image[] {
  const base = makeLayer({ 'base/libraries.bin': randomBytes(BASE_LENGTH) });
  return Object.entries(OWN_LENGTHS).map(([tag, length]) =>
    makeImage({
      tags: [tag],
      layers: [base, makeLayer({ 'app/content.bin': randomBytes(length) })],
      architecture: ARCHITECTURES[process.arch] ?? process.arch,
    }),
  );
}
