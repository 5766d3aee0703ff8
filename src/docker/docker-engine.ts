import type { Readable } from 'node:stream';
import { Agent, errors, request, type Dispatcher } from 'undici';
import { LoaderError, systemErrorCode } from '../errors.ts';
import { watchForStalls } from '../async/stall-watchdog.ts';
import { describeDockerHost, type DockerHost } from './docker-host.ts';
import { LoadReply, type LoadReplyListener } from './load-reply.ts';

export interface DockerEngineOptions {
  readonly host: DockerHost;
  /** For one small call, in ms. Loads have a watchdog of their own. */
  readonly timeoutMs: number;
}

/** What an engine says of an image (Docker Engine API, GET /images/{name}/json). */
export interface EngineImage {
  /** Digest of the config; with the containerd image store, of the manifest. */
  readonly id: string;
  /** From the lowest to the highest. */
  readonly diffIds: readonly string[];
}

export interface EngineTraits {
  /** Takes no image of which a layer is left out: the containerd image store, Podman. */
  readonly needsEveryLayer: boolean;
  /** Image IDs are digests of manifests, so that they can't be told from a config: the containerd image store. */
  readonly identifiesByManifest: boolean;
}

/** A tar that is streamed into the engine. */
export interface LoadBody {
  /** Bytes; undefined where it is not known before. */
  readonly length: number | undefined;
  readonly chunks: AsyncIterable<Buffer>;
}

export interface ExportOptions {
  /** How long the engine may take before the first byte, in ms: engines write the whole tar to their disk before it. */
  readonly prepareTimeoutMs: number;
  /** How long it may send nothing from then on, in ms. */
  readonly stallTimeoutMs: number;
  readonly signal: AbortSignal;
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly json: unknown;
}

/** The API versions that this client was written for. Older engines lack what it needs, newer ones speak these too. */
const MIN_API_VERSION = 24;
const MAX_API_VERSION = 51;
const MAX_ANSWER_LENGTH = 16 * 1024 * 1024;
const NO_SPACE = /no space left on device|disk quota exceeded/i;

/**
 * The calls of the Docker Engine API that are needed to pack and to unlock images.
 *
 * Common failures: LoaderError `engine_unreachable`, `engine_forbidden`, `engine_invalid_response`, `engine_error`,
 * `engine_stalled`. Messages name the socket and what to do.
 */
export class DockerEngine {
  readonly #options: DockerEngineOptions;
  readonly #dispatcher: Dispatcher;
  readonly #origin: string;
  #version: string | undefined;

  constructor(options: DockerEngineOptions) {
    const { host } = options;
    this.#options = options;
    if (host.kind === 'unix') {
      this.#origin = 'http://docker';
      this.#dispatcher = new Agent({ connect: { socketPath: host.socketPath } });
    } else {
      this.#origin = `${host.tls === undefined ? 'http' : 'https'}://${host.host}`;
      this.#dispatcher = new Agent({ connect: { ...host.tls } });
    }
  }

  /** Finds out whether an engine answers, and agrees with it on a version of the API. */
  async connect(signal: AbortSignal): Promise<void> {
    const answer = await this.#call('GET', '/_ping', signal);
    const version = /^1\.(\d+)$/.exec(String(answer.headers['api-version']))?.[1];
    if (answer.status !== 200 || version === undefined) throw this.#notAnEngine();
    if (Number(version) < MIN_API_VERSION) {
      throw new LoaderError(
        'engine_error',
        `The Docker engine at ${this.#name} speaks API 1.${version}; 1.${MIN_API_VERSION} is the least: update it.`,
      );
    }
    this.#version = `/v1.${Math.min(Number(version), MAX_API_VERSION)}`;
  }

  async traits(signal: AbortSignal): Promise<EngineTraits> {
    const [info, version] = await Promise.all([this.#get('/info', signal), this.#get('/version', signal)]);
    const status = JSON.stringify(asRecord(info)['DriverStatus'] ?? '');
    const components = asRecord(version)['Components'];
    const isPodman =
      Array.isArray(components) && components.some((part) => /podman/i.test(String(asRecord(part)['Name'])));
    const hasContainerdStore = status.includes('io.containerd.snapshotter');
    return { needsEveryLayer: isPodman || hasContainerdStore, identifiesByManifest: hasContainerdStore };
  }

  /** IDs of all images; with `label`, of those that have it and no tag. */
  async listImages(signal: AbortSignal, label?: string): Promise<string[]> {
    const filters =
      label === undefined
        ? ''
        : `?filters=${encodeURIComponent(JSON.stringify({ label: [label], dangling: ['true'] }))}`;
    const images = await this.#get(`/images/json${filters}`, signal);
    if (!Array.isArray(images)) throw this.#notAnEngine();
    return images.map((image) => String(asRecord(image)['Id']));
  }

  /** `name` is an ID or a tag. Undefined when there is no such image. */
  async inspectImage(name: string, signal: AbortSignal): Promise<EngineImage | undefined> {
    // No image has such a name, and a URL would lead elsewhere.
    if (name.split('/').some((segment) => ['', '.', '..'].includes(segment))) return undefined;
    const answer = await this.#versioned('GET', `/images/${encodePath(name)}/json`, signal);
    if (answer.status === 404) return undefined;
    const image = asRecord(this.#assertSuccess(answer).json);
    const layers = asRecord(image['RootFS'])['Layers'] ?? [];
    if (typeof image['Id'] !== 'string' || !Array.isArray(layers)) throw this.#notAnEngine();
    return { id: image['Id'], diffIds: layers.map(String) };
  }

  /** Removes an image that no container uses; the layers that others stand on stay. */
  async removeImage(id: string, signal: AbortSignal): Promise<void> {
    const answer = await this.#versioned('DELETE', `/images/${encodePath(id)}?noprune=true`, signal);
    if (answer.status !== 404) this.#assertSuccess(answer);
  }

  /**
   * Streams a tar of images into the engine, and reads its reply to the end. That it is a good one does not prove that
   * an image is there: inspect it.
   *
   * `signal` breaks it off. Whoever gives it watches for stalls, by what is taken of `body` and heard from `listener`.
   *
   * @throws LoaderError also `engine_disk_full`; or what `body` threw, or the reason of `signal`
   */
  async load(body: LoadBody, listener: LoadReplyListener, signal: AbortSignal): Promise<void> {
    const source = new WatchedBody(body.chunks);
    const reply = new LoadReply(listener);
    let isAnswered = false;
    try {
      const response = await request(`${this.#origin}${await this.#versionPath(signal)}/images/load?quiet=0`, {
        dispatcher: this.#dispatcher,
        method: 'POST',
        headers: {
          'content-type': 'application/x-tar',
          ...(body.length === undefined ? {} : { 'content-length': String(body.length) }),
        },
        // Of any async iterable, as undici's documentation says and its types do not.
        body: source as unknown as Readable,
        signal,
        headersTimeout: 0,
        bodyTimeout: 0,
      });
      isAnswered = true;
      if (response.statusCode !== 200) this.#assertSuccess(await readAnswer(response));
      for await (const bytes of response.body as AsyncIterable<Buffer>) reply.take(bytes);
      reply.end();
    } catch (error) {
      signal.throwIfAborted();
      // Of several failures, the first cause: a body that fails breaks the connection, not the other way round.
      if (source.error !== undefined) throw source.error;
      if (reply.error !== undefined) throw engineError(reply.error);
      if (error instanceof LoaderError) throw error;
      if (!isAnswered) throw this.#connectionError(error);
      throw new LoaderError(
        'engine_invalid_response',
        `The Docker engine at ${this.#name} broke off its reply, or replied what is none of a Docker engine.`,
        { cause: error },
      );
    }
    if (reply.error !== undefined) throw engineError(reply.error);
  }

  /**
   * Streams the tar of images, each by a tag or ID, as `docker save` writes it. An engine that fails on its way may end it
   * as if it were whole: read what it holds.
   *
   * @throws LoaderError, or the reason of `signal`
   */
  async *exportImages(names: readonly string[], options: ExportOptions): AsyncGenerator<Buffer, void, undefined> {
    const { prepareTimeoutMs, stallTimeoutMs, signal } = options;
    const query = names.map((name) => `names=${encodeURIComponent(name)}`).join('&');
    const source = await this.#startExport(`/images/get?${query}`, prepareTimeoutMs, signal);
    const stalled = () => this.#silent(stallTimeoutMs);
    try {
      yield* watchForStalls(source, { timeoutMs: stallTimeoutMs, stalled, signal });
    } catch (error) {
      signal.throwIfAborted();
      throw error instanceof LoaderError ? error : this.#connectionError(error);
    }
  }

  async close(): Promise<void> {
    await this.#dispatcher.destroy();
  }

  get #name(): string {
    return describeDockerHost(this.#options.host);
  }

  async #startExport(path: string, timeoutMs: number, signal: AbortSignal): Promise<Readable> {
    const silence = new AbortController();
    const timer = setTimeout(() => silence.abort(this.#silent(timeoutMs)), timeoutMs);
    try {
      const response = await request(`${this.#origin}${await this.#versionPath(signal)}${path}`, {
        dispatcher: this.#dispatcher,
        method: 'GET',
        signal: AbortSignal.any([signal, silence.signal]),
        headersTimeout: 0,
        bodyTimeout: 0,
      });
      if (response.statusCode === 200) return response.body;
      this.#assertSuccess(await readAnswer(response));
      throw this.#notAnEngine();
    } catch (error) {
      signal.throwIfAborted();
      silence.signal.throwIfAborted();
      throw error instanceof LoaderError ? error : this.#connectionError(error);
    } finally {
      clearTimeout(timer);
    }
  }

  async #get(path: string, signal: AbortSignal): Promise<unknown> {
    return this.#assertSuccess(await this.#versioned('GET', path, signal)).json;
  }

  async #versioned(method: 'GET' | 'DELETE', path: string, signal: AbortSignal): Promise<Answer> {
    return await this.#call(method, `${await this.#versionPath(signal)}${path}`, signal);
  }

  async #versionPath(signal: AbortSignal): Promise<string> {
    if (this.#version === undefined) await this.connect(signal);
    return this.#version ?? '';
  }

  async #call(method: 'GET' | 'DELETE', path: string, signal: AbortSignal): Promise<Answer> {
    const timeout = AbortSignal.timeout(this.#options.timeoutMs);
    try {
      return await readAnswer(
        await request(`${this.#origin}${path}`, {
          dispatcher: this.#dispatcher,
          method,
          signal: AbortSignal.any([signal, timeout]),
        }),
      );
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof LoaderError) throw error;
      if (timeout.aborted) {
        throw new LoaderError(
          'engine_stalled',
          `The Docker engine at ${this.#name} did not answer within ${this.#options.timeoutMs} ms; restart it.`,
          { cause: error },
        );
      }
      throw this.#connectionError(error);
    }
  }

  #assertSuccess(answer: Answer): Answer {
    if (answer.status >= 200 && answer.status < 300) return answer;
    const message = asRecord(answer.json)['message'];
    throw engineError(typeof message === 'string' ? message : `status ${answer.status}`);
  }

  #connectionError(error: unknown): LoaderError {
    const code = systemErrorCode(error) ?? 'unknown';
    const options = { cause: error };
    if (code === 'EACCES' || code === 'EPERM') {
      return new LoaderError(
        'engine_forbidden',
        `The Loader may not use the Docker engine's socket ${this.#name}: add its user to the group of the socket (usually docker).`,
        options,
      );
    }
    if (code === 'ENOENT' || code === 'ECONNREFUSED') {
      return new LoaderError(
        'engine_unreachable',
        `No Docker engine listens at ${this.#name} (${code}): start it, or set DOCKER_HOST to where it listens.`,
        options,
      );
    }
    // What answers speaks no HTTP.
    if (error instanceof errors.HTTPParserError) return this.#notAnEngine(error);
    return new LoaderError(
      'engine_unreachable',
      `The connection to the Docker engine at ${this.#name} failed (${code}): see whether it runs.`,
      options,
    );
  }

  #silent(timeoutMs: number): LoaderError {
    return new LoaderError(
      'engine_stalled',
      `The Docker engine at ${this.#name} sent nothing for ${timeoutMs} ms: restart it; if it is only slow, set a higher ENGINE_STALL_TIMEOUT_MS.`,
    );
  }

  #notAnEngine(cause?: unknown): LoaderError {
    return new LoaderError(
      'engine_invalid_response',
      `What answers at ${this.#name} is no Docker engine: set DOCKER_HOST to where it listens.`,
      { cause },
    );
  }
}

/** The engine's own words may hold paths and image names, and no secret of ours: it is told none. */
function engineError(message: string): LoaderError {
  const text = message.slice(0, 500);
  return NO_SPACE.test(text)
    ? new LoaderError('engine_disk_full', `The disk of the Docker engine is full: make room there. It said: ${text}`)
    : new LoaderError('engine_error', `The Docker engine refused: ${text}`);
}

async function readAnswer({ statusCode, headers, body }: Dispatcher.ResponseData): Promise<Answer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_ANSWER_LENGTH) {
      throw new LoaderError(
        'engine_invalid_response',
        'The Docker engine answered more than 16 MiB: see whether it is one.',
      );
    }
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString('utf8');
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    // Some answers are no JSON, such as that of /_ping; who needs it misses its fields.
  }
  return { status: statusCode, headers, json };
}

function asRecord(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

/** A name may have slashes, and a tag's colon belongs to it. */
function encodePath(name: string): string {
  return name.split('/').map(encodeURIComponent).join('/').replaceAll('%3A', ':');
}

/** Remembers how a body failed, which undici tells as a failure of its own. */
class WatchedBody {
  error: Error | undefined;
  readonly #chunks: AsyncIterable<Buffer>;

  constructor(chunks: AsyncIterable<Buffer>) {
    this.#chunks = chunks;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, undefined> {
    try {
      yield* this.#chunks;
    } catch (error) {
      this.error = error instanceof Error ? error : new Error(String(error));
      throw error;
    }
  }
}
