import type { DockerEngine } from '../docker/docker-engine.ts';
import { CliError } from './cli-error.ts';

export interface EngineSourceOptions {
  readonly engine: DockerEngine;
  /** How long the engine may send nothing in the middle of a tar, in ms. */
  readonly stallTimeoutMs: number;
}

/**
 * An engine writes the whole tar to its disk before it sends the first byte. This wait may be this many times longer.
 */
const PREPARE_FACTOR = 10;

/** Images of the Docker engine. */
export class EngineSource {
  readonly length = undefined;
  /** The digests of the layers of each image, by its name. The archive must have an image with these layers. */
  readonly wanted: ReadonlyMap<string, readonly string[]>;
  readonly #options: EngineSourceOptions;

  private constructor(wanted: ReadonlyMap<string, readonly string[]>, options: EngineSourceOptions) {
    this.wanted = wanted;
    this.#options = options;
  }

  /** @throws CliError that names all images that the engine does not have; LoaderError `engine_...` */
  static async find(
    names: readonly string[],
    options: EngineSourceOptions,
    signal: AbortSignal,
  ): Promise<EngineSource> {
    const wanted = new Map<string, readonly string[]>();
    const missing: string[] = [];
    await options.engine.connect(signal);
    for (const name of names) {
      const image = await options.engine.inspectImage(name, signal);
      if (image === undefined) missing.push(name);
      else wanted.set(exactName(name, image.id), image.diffIds);
    }
    if (missing.length > 0) {
      throw new CliError(`The Docker engine does not have ${missing.join(', ')}: pull or build them first.`);
    }
    return new EngineSource(wanted, options);
  }

  /** @throws LoaderError `engine_...`, or the reason of `signal` */
  chunks(signal: AbortSignal): AsyncIterable<Buffer> {
    const { engine, stallTimeoutMs } = this.#options;
    const prepareTimeoutMs = Math.min(PREPARE_FACTOR * stallTimeoutMs, MAX_TIMER_MS);
    return engine.exportImages([...this.wanted.keys()], { prepareTimeoutMs, stallTimeoutMs, signal });
  }
}

/** The longest time that Node's timers take. */
const MAX_TIMER_MS = 2_147_483_647;

/** The name with its tag. Without a tag, an engine would export all tags of the repository. */
function exactName(name: string, id: string): string {
  const isId = id === name || id.startsWith(`sha256:${name}`);
  const hasTag = /[:@][^/]*$/.test(name);
  return isId || hasTag ? name : `${name}:latest`;
}
