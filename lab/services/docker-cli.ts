import type { Readable } from 'node:stream';
import { Pool } from 'undici';

/** What the engine tells about an image; as much of it as tests look at. */
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
  readonly #pool: Pool;

  /** `host` as in DOCKER_HOST, with a Unix socket. */
  constructor(host: string) {
    if (!host.startsWith('unix://')) throw new Error(`no Unix socket: ${host}`);
    this.#pool = new Pool('http://docker', { socketPath: host.slice('unix://'.length) });
  }

  async close(): Promise<void> {
    await this.#pool.close();
  }

  /** Whether the engine answers. */
  async ping(): Promise<boolean> {
    return await this.#ask('GET', '/_ping').then(
      ({ status }) => status === 200,
      () => false,
    );
  }

  /** The engine's words, such as `Loaded image: azaion/api:1.2.3`. It answers 200 for archives that it refuses, too. */
  async load(tar: Buffer | Readable): Promise<string[]> {
    const text = await this.#insist('POST', '/images/load?quiet=1', tar);
    const lines = text.split('\n').filter((line) => line.trim() !== '');
    return lines.flatMap((line) => {
      const { stream = '', error } = JSON.parse(line) as { stream?: string; error?: string };
      if (error !== undefined) throw new Error(error);
      return stream.trim().split('\n');
    });
  }

  /** Of all images, also those without a tag. */
  async imageIds(): Promise<string[]> {
    const images = JSON.parse(await this.#insist('GET', '/images/json?all=1')) as { Id: string }[];
    return images.map(({ Id }) => Id).sort();
  }

  /** By ID or tag; undefined when the engine has none such. */
  async inspect(ref: string): Promise<InspectedImage | undefined> {
    const answer = await this.#ask('GET', `/images/${encodeURI(ref)}/json`);
    if (answer.status === 404) return undefined;
    return JSON.parse(insistOn(answer)) as InspectedImage;
  }

  /** An ID goes with all of its tags, a tag alone unless it was the last. What is not there is no error. */
  async remove(ref: string): Promise<void> {
    const answer = await this.#ask('DELETE', `/images/${encodeURI(ref)}?force=1`);
    if (answer.status !== 404) insistOn(answer);
  }

  /** For tests that have an engine for themselves. */
  async removeAll(): Promise<void> {
    for (const id of await this.imageIds()) await this.remove(id);
  }

  async #insist(method: 'GET' | 'POST', path: string, body?: Buffer | Readable): Promise<string> {
    return insistOn(await this.#ask(method, path, body));
  }

  async #ask(method: 'GET' | 'POST' | 'DELETE', path: string, body?: Buffer | Readable): Promise<Answer> {
    const headers = body === undefined ? {} : { 'content-type': 'application/x-tar' };
    const response = await this.#pool.request({ method, path, headers, body: body ?? null });
    return { status: response.statusCode, text: await response.body.text() };
  }
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

function insistOn(answer: Answer): string {
  if (answer.status >= 300) throw new Error(`the engine answered ${answer.status}: ${answer.text.trim()}`);
  return answer.text;
}
