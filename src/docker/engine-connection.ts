import type { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import type { LoaderError } from '../errors.ts';
import { asRecord, parseJson } from '../json.ts';
import { boundedCall, DeadlineError, jsonOf, readBounded } from '../net/bounded-call.ts';
import { Agent } from '../net/undici-parts.ts';
import { describeDockerHost, type DockerHost } from './docker-host.ts';
import { EngineErrors } from './engine-errors.ts';

export interface DockerEngineOptions {
  readonly host: DockerHost;
  /** For one small call, in ms. Loads and exports watch for stalls themselves. */
  readonly timeoutMs: number;
}

/** The whole answer to a small call. */
export interface EngineAnswer {
  readonly status: number;
  /** Undefined where the body is not JSON, such as that of /_ping. */
  readonly json: unknown;
}

/** Whether the engine answered. */
export interface EngineState {
  /** Why it did not. */
  readonly failure: LoaderError | undefined;
}

/** A request or an answer that is too large to be held in memory. */
export interface EngineStreamRequest {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: AsyncIterable<Buffer>;
}

/** This client speaks these versions of the API. Older engines lack what it needs; newer ones speak these too. */
const MIN_API_VERSION = 24;
const MAX_API_VERSION = 51;
const MAX_ANSWER_LENGTH = 16 * 1024 * 1024;

/** The connections to one engine: the version of the API that both speak, small calls, and streams. */
export class EngineConnection {
  readonly errors: EngineErrors;
  readonly #timeoutMs: number;
  readonly #dispatcher: Dispatcher;
  readonly #origin: string;
  #versionPath: string | undefined;
  #lastAnswer: EngineState | undefined;

  constructor({ host, timeoutMs }: DockerEngineOptions) {
    this.errors = new EngineErrors(describeDockerHost(host));
    this.#timeoutMs = timeoutMs;
    if (host.kind === 'unix') {
      this.#origin = 'http://docker';
      this.#dispatcher = new Agent({ connect: { socketPath: host.socketPath } });
    } else {
      this.#origin = `${host.tls === undefined ? 'http' : 'https'}://${host.host}`;
      this.#dispatcher = new Agent({ connect: { ...host.tls } });
    }
  }

  /** What became of the last small call; undefined before the first. */
  get lastAnswer(): EngineState | undefined {
    return this.#lastAnswer;
  }

  /** Finds out whether an engine answers, and agrees with it on a version of the API. Returns the version's path. */
  async connect(signal: AbortSignal): Promise<string> {
    const { status, headers } = await this.#call('GET', '/_ping', signal);
    const version = /^1\.(\d+)$/.exec(String(headers['api-version']))?.[1];
    if (status !== 200 || version === undefined) throw this.errors.notAnEngine();
    if (Number(version) < MIN_API_VERSION) throw this.errors.tooOld(`1.${version}`, `1.${MIN_API_VERSION}`);
    this.#versionPath = `/v1.${Math.min(Number(version), MAX_API_VERSION)}`;
    return this.#versionPath;
  }

  /**
   * The JSON of a GET that must succeed.
   *
   * @throws LoaderError whose code begins with `engine_`; the reason of `signal`
   */
  async get(path: string, signal: AbortSignal): Promise<unknown> {
    return this.assertSuccess(await this.call('GET', path, signal)).json;
  }

  /** One small call, whatever its status. @throws as `get` does */
  async call(method: 'GET' | 'DELETE', path: string, signal: AbortSignal): Promise<EngineAnswer> {
    const answer = await this.#call(method, (await this.#version(signal)) + path, signal);
    return { status: answer.status, json: jsonOf(answer) };
  }

  /** @throws LoaderError in the words of the engine */
  assertSuccess(answer: EngineAnswer): EngineAnswer {
    if (answer.status >= 200 && answer.status < 300) return answer;
    const message = asRecord(answer.json)?.['message'];
    throw this.errors.refused(typeof message === 'string' ? message : `status ${answer.status}`);
  }

  /** A call without a deadline: the caller watches it. @throws the reason of `signal`; undici's error */
  async stream(
    { method, path, headers, body }: EngineStreamRequest,
    signal: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    const version = await this.#version(signal);
    const { origin, pathname, search } = new URL(`${this.#origin}${version}${path}`);
    return await this.#dispatcher.request({
      origin,
      path: pathname + search,
      method,
      headers: { ...headers },
      // undici takes any async iterable, as its documentation says and its types do not.
      body: body as Dispatcher.DispatchOptions['body'] & AsyncIterable<Buffer>,
      signal,
      headersTimeout: 0,
      bodyTimeout: 0,
    });
  }

  /** The body of a stream that was accepted. @throws LoaderError in the words of the engine */
  async bodyOf(response: Dispatcher.ResponseData): Promise<Readable> {
    if (response.statusCode === 200) return response.body;
    const body = await readBounded(response.body as AsyncIterable<Buffer>, MAX_ANSWER_LENGTH);
    this.assertSuccess({ status: response.statusCode, json: parseJson(body.toString('utf8')) });
    throw this.errors.notAnEngine();
  }

  async close(): Promise<void> {
    await this.#dispatcher.destroy();
  }

  async #version(signal: AbortSignal): Promise<string> {
    return this.#versionPath ?? (await this.connect(signal));
  }

  async #call(method: 'GET' | 'DELETE', path: string, signal: AbortSignal) {
    try {
      const answer = await boundedCall({
        dispatcher: this.#dispatcher,
        method,
        url: this.#origin + path,
        timeoutMs: this.#timeoutMs,
        maxLength: MAX_ANSWER_LENGTH,
        signal,
      });
      this.#lastAnswer = { failure: undefined };
      return answer;
    } catch (error) {
      signal.throwIfAborted();
      const failure =
        error instanceof DeadlineError ? this.errors.late(this.#timeoutMs, error) : this.errors.failed(error);
      this.#lastAnswer = { failure };
      throw failure;
    }
  }
}
