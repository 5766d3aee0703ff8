import type { Readable } from 'node:stream';
import { EngineSocket, insistOn } from './engine-socket.ts';

/** The fields of an image that the tests read. */
export interface InspectedImage {
  readonly Id: string;
  readonly RepoTags: readonly string[];
  readonly Architecture: string;
  readonly Os: string;
  readonly Config: Readonly<Record<string, unknown>>;
  readonly RootFS: { readonly Layers?: readonly string[] };
}

/** The few commands of `docker` that tests need, straight to the engine's socket: the command may not be installed. */
export class DockerCli {
  readonly #engine: EngineSocket;

  /** `host` as in DOCKER_HOST, with a Unix socket. */
  constructor(host: string) {
    this.#engine = new EngineSocket(host);
  }

  async close(): Promise<void> {
    await this.#engine.close();
  }

  /** Whether the engine answers. */
  async ping(): Promise<boolean> {
    return await this.#engine.ask('GET', '/_ping').then(
      ({ status }) => status === 200,
      () => false,
    );
  }

  /** The engine's words, such as `Loaded image: azaion/api:1.2.3`. The status is 200 also for an archive that it refuses. */
  async load(tar: Buffer | Readable): Promise<string[]> {
    return await this.#engine.insistOnLines('/images/load?quiet=1', tar);
  }

  /** The tar of images, each by its ID or tag. An image that can't be read whole is an error, or missing from the tar. */
  async save(refs: readonly string[]): Promise<Buffer> {
    const query = new URLSearchParams(refs.map((ref) => ['names', ref]));
    return await this.#engine.insist('GET', `/images/get?${query.toString()}`);
  }

  /** The IDs of all images, also those without a tag. */
  async imageIds(): Promise<string[]> {
    const images = JSON.parse((await this.#engine.insist('GET', '/images/json?all=1')).toString()) as { Id: string }[];
    return images.map(({ Id }) => Id).sort();
  }

  /** By ID or tag; undefined when the engine has no such image. */
  async inspect(ref: string): Promise<InspectedImage | undefined> {
    const answer = await this.#engine.ask('GET', `/images/${encodeURI(ref)}/json`);
    if (answer.status === 404) return undefined;
    return JSON.parse(insistOn(answer).toString()) as InspectedImage;
  }

  /** An ID goes with all of its tags, a tag alone unless it was the last. What is not there is no error. */
  async remove(ref: string): Promise<void> {
    const answer = await this.#engine.ask('DELETE', `/images/${encodeURI(ref)}?force=1`);
    if (answer.status !== 404) insistOn(answer);
  }

  /** For tests that have an engine for themselves. */
  async removeAll(): Promise<void> {
    for (const id of await this.imageIds()) await this.remove(id);
  }
}
