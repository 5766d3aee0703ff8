import { isDeepStrictEqual } from 'node:util';
import { Semaphore } from '../async/semaphore.ts';
import { asRecord } from '../json.ts';
import { describeDockerHost } from './docker-host.ts';
import { EngineConnection, type DockerEngineOptions, type EngineState } from './engine-connection.ts';
import { streamImageEvents, type ImageEvent } from './image-events.ts';
import { streamImageExport, type ExportOptions } from './image-export.ts';
import { isSameContainerConfig, type ContainerConfig } from './container-config.ts';
import { sendImageLoad, type LoadBody } from './image-load.ts';
import type { LayerProgress } from './load-reply.ts';

export type { DockerEngineOptions, LayerProgress, LoadBody };

/** What an engine tells of an image (Docker Engine API, GET /images/{name}/json). */
export interface EngineImage {
  /** Digest of the config; with the containerd image store, of the manifest. */
  readonly id: string;
  /** From the lowest layer to the highest. */
  readonly diffIds: readonly string[];
  /** What containers get of its config. */
  readonly config: ContainerConfig;
}

export interface EngineTraits {
  /** The engine takes an image only with all of its layers, as the containerd image store and Podman do. */
  readonly needsEveryLayer: boolean;
  /** Image IDs are digests of manifests, which a config does not tell, as in the containerd image store. */
  readonly identifiesByManifest: boolean;
}

/** An image that an engine is asked for. */
export interface SoughtImage {
  /** Digest of the config, or the engine's own ID. */
  readonly id: string;
  readonly tags: readonly string[];
  readonly diffIds: readonly string[];
  /** IDs by which a containerd image store may know it; none where that can't be told. */
  readonly manifestIds?: readonly string[];
  /** Undefined where it is not known. */
  readonly config?: ContainerConfig;
}

/** Inspections that wait for the engine's answer at the same time. */
const MAX_INSPECTIONS = 8;
/** Images of one engine. The unlock inspects each. */
const MAX_IMAGES = 10_000;

/**
 * The calls of the Docker Engine API that packing and unlocking images needs.
 *
 * Each throws the reason of its signal, or a LoaderError: `engine_unreachable`, `engine_forbidden`,
 * `engine_invalid_response`, `engine_error`, `engine_stalled`. Messages name the socket and what to do.
 */
export class DockerEngine {
  /** As messages name it. */
  readonly host: string;
  readonly #connection: EngineConnection;

  constructor(options: DockerEngineOptions) {
    this.host = describeDockerHost(options.host);
    this.#connection = new EngineConnection(options);
  }

  /** What became of the last small call; undefined before the first. */
  get lastAnswer(): EngineState | undefined {
    return this.#connection.lastAnswer;
  }

  /** Finds out whether an engine answers, and agrees with it on a version of the API. */
  async connect(signal: AbortSignal): Promise<void> {
    await this.#connection.connect(signal);
  }

  async traits(signal: AbortSignal): Promise<EngineTraits> {
    const [info, version] = await Promise.all([
      this.#connection.get('/info', signal),
      this.#connection.get('/version', signal),
    ]);
    const status = JSON.stringify(asRecord(info)?.['DriverStatus'] ?? '');
    const components = asRecord(version)?.['Components'];
    const isPodman =
      Array.isArray(components) && components.some((part) => /podman/i.test(String(asRecord(part)?.['Name'])));
    const hasContainerdStore = status.includes('io.containerd.snapshotter');
    return { needsEveryLayer: isPodman || hasContainerdStore, identifiesByManifest: hasContainerdStore };
  }

  /** The IDs of all images; with `label`, of those that have the label and no tag. */
  async listImages(signal: AbortSignal, label?: string): Promise<string[]> {
    const filters =
      label === undefined
        ? ''
        : `?filters=${encodeURIComponent(JSON.stringify({ label: [label], dangling: ['true'] }))}`;
    const images = await this.#connection.get(`/images/json${filters}`, signal);
    if (!Array.isArray(images) || images.length > MAX_IMAGES) throw this.#connection.errors.notAnEngine();
    return images.map((image) => String(asRecord(image)?.['Id']));
  }

  /** `name` is an ID or a tag. Undefined when there is no such image. */
  async inspectImage(name: string, signal: AbortSignal): Promise<EngineImage | undefined> {
    // No image has such a name, and as part of a URL it would lead elsewhere.
    if (name.split('/').some((segment) => ['', '.', '..'].includes(segment))) return undefined;
    const answer = await this.#connection.call('GET', `/images/${encodePath(name)}/json`, signal);
    // 400 is for a name that no image can have.
    if (answer.status === 404 || answer.status === 400) return undefined;
    const { Config, Id: id, RootFS: rootFs } = asRecord(this.#connection.assertSuccess(answer).json) ?? {};
    const layers = asRecord(rootFs)?.['Layers'] ?? [];
    if (typeof id !== 'string' || !Array.isArray(layers)) throw this.#connection.errors.notAnEngine();
    return { id, diffIds: layers.map(String), config: asRecord(Config) ?? {} };
  }

  /** Inspects all images. One that is removed meanwhile is not among them. */
  async inspectImages(signal: AbortSignal): Promise<EngineImage[]> {
    const slots = new Semaphore(MAX_INSPECTIONS);
    const images = await Promise.all(
      (await this.listImages(signal)).map(async (id) => {
        using _permit = await slots.acquire(signal);
        return await this.inspectImage(id, signal);
      }),
    );
    return images.filter((image) => image !== undefined);
  }

  /**
   * Returns the ID under which the engine has an image, if it has it under each of its tags.
   *
   * A containerd image store identifies an image by a manifest, which it may have written itself. There, an image with
   * another ID counts as well if layers and config are the same.
   */
  async findImage(sought: SoughtImage, traits: EngineTraits, signal: AbortSignal): Promise<string | undefined> {
    if (sought.tags.length === 0) return await this.#findNameless(sought, traits, signal);
    let id: string | undefined;
    for (const tag of sought.tags) {
      const image = await this.inspectImage(tag, signal);
      if (image === undefined || !isSought(image, sought, traits)) return undefined;
      id = image.id;
    }
    return id;
  }

  /** Removes an image that no container uses. The layers on which other images stand are kept. */
  async removeImage(id: string, signal: AbortSignal): Promise<void> {
    const answer = await this.#connection.call('DELETE', `/images/${encodePath(id)}?noprune=true`, signal);
    if (answer.status !== 404) this.#connection.assertSuccess(answer);
  }

  /**
   * Streams a tar of images into the engine, and reads its reply to the end. It yields how far the engine is with the
   * layers. A good reply does not prove that an image is there: inspect it.
   *
   * There is no deadline. The caller watches for stalls by what is taken of `body` and what is yielded, and breaks the
   * load off by `signal`.
   *
   * @throws LoaderError also `engine_disk_full`; what `body` threw
   */
  load(body: LoadBody, signal: AbortSignal): AsyncGenerator<LayerProgress, void, undefined> {
    return sendImageLoad(this.#connection, body, signal);
  }

  /**
   * Streams the tar of images, each by a tag or ID, as `docker save` writes it. An engine that fails on its way may end
   * the tar as if it were complete, so the caller checks what it holds.
   */
  exportImages(names: readonly string[], options: ExportOptions): AsyncGenerator<Buffer, void, undefined> {
    return streamImageExport(this.#connection, names, options);
  }

  /**
   * Yields `listening` once, and then `changed` whenever something happens to an image: a tag was moved or taken off,
   * an image was removed or loaded. It ends when the engine ends it.
   */
  imageEvents(signal: AbortSignal): AsyncGenerator<ImageEvent, void, undefined> {
    return streamImageEvents(this.#connection, signal);
  }

  async close(): Promise<void> {
    await this.#connection.close();
  }

  async #findNameless(sought: SoughtImage, traits: EngineTraits, signal: AbortSignal): Promise<string | undefined> {
    for (const id of [sought.id, ...(sought.manifestIds ?? [])]) {
      const image = await this.inspectImage(id, signal);
      if (image !== undefined && isSought(image, sought, traits)) return image.id;
    }
    if (!traits.identifiesByManifest) return undefined;
    return (await this.inspectImages(signal)).find((image) => isSought(image, sought, traits))?.id;
  }
}

function isSought(image: EngineImage, sought: SoughtImage, { identifiesByManifest }: EngineTraits): boolean {
  if (image.id === sought.id || sought.manifestIds?.includes(image.id) === true) return true;
  if (!identifiesByManifest || !isDeepStrictEqual(image.diffIds, sought.diffIds)) return false;
  return sought.config === undefined || isSameContainerConfig(image.config, sought.config);
}

/** A name may have slashes, and the colon of a tag belongs to it. */
function encodePath(name: string): string {
  return name.split('/').map(encodeURIComponent).join('/').replaceAll('%3A', ':');
}
