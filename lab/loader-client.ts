import type { StatusView } from '../src/http/schemas/health.ts';
import type { UnlockStatus } from '../src/unlock/unlock-service.ts';
import { bodyOf, type JsonAnswer } from './json-answer.ts';
import { readServerSentEvents } from './server-sent-events.ts';

export interface LoaderClientOptions {
  readonly url: string;
  /** Goes with each request. */
  readonly apiKey?: string | undefined;
  /** Ends every request that is under way. */
  readonly signal?: AbortSignal;
  /** Is given the text of each JSON answer. */
  readonly onAnswer?: (text: string) => void;
}

/**
 * A client of a Loader's HTTP API, for demo, tests and bench. What returns a `Response` or a `JsonAnswer` takes every
 * status; all else takes 200 only.
 */
export class LoaderClient {
  readonly url: string;
  /** The headers of each request. */
  readonly authorization: Readonly<Record<string, string>>;
  readonly #signal: AbortSignal | undefined;
  readonly #onAnswer: ((text: string) => void) | undefined;

  constructor({ url, apiKey, signal, onAnswer }: LoaderClientOptions) {
    this.url = url;
    this.authorization = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };
    this.#signal = signal;
    this.#onAnswer = onAnswer;
  }

  /** Sends any request. */
  async fetch(route: string, { headers, signal, ...init }: RequestInit = {}): Promise<Response> {
    const signals = [this.#signal, signal].filter((one) => one instanceof AbortSignal);
    return await fetch(this.url + route, {
      ...init,
      headers: { ...this.authorization, ...(headers as Readonly<Record<string, string>> | undefined) },
      ...(signals.length === 0 ? {} : { signal: AbortSignal.any(signals) }),
    });
  }

  async get(route: string): Promise<JsonAnswer> {
    return await this.readJson(await this.fetch(route));
  }

  async delete(route: string, signal?: AbortSignal): Promise<JsonAnswer> {
    return await this.readJson(
      await this.fetch(route, { method: 'DELETE', ...(signal === undefined ? {} : { signal }) }),
    );
  }

  /** Sends JSON, or a string as it is. */
  async post(route: string, body: unknown, headers: Readonly<Record<string, string>> = {}): Promise<Response> {
    return await this.fetch(route, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
  }

  async postForJson(route: string, body: unknown, headers?: Readonly<Record<string, string>>): Promise<JsonAnswer> {
    return await this.readJson(await this.post(route, body, headers));
  }

  async login(email: string, password: string): Promise<JsonAnswer> {
    return await this.postForJson('/login', { email, password });
  }

  /** POST /load; the caller reads the body. */
  async load(name: string, folder = 'models'): Promise<Response> {
    return await this.post(`/load/${encodeURIComponent(name)}`, { filename: name, folder });
  }

  /** POST /upload with the file before the folder, as curl and most clients do. */
  async upload(name: string, content: Uint8Array<ArrayBuffer> | Blob, folder?: string): Promise<JsonAnswer> {
    const form = new FormData();
    form.append('data', content instanceof Blob ? content : new Blob([content]), name);
    if (folder !== undefined) form.append('folder', folder);
    const route = `/upload/${encodeURIComponent(name)}`;
    return await this.readJson(await this.fetch(route, { method: 'POST', body: form }));
  }

  /** POST /unlock. */
  async startUnlock(email: string, password: string): Promise<JsonAnswer> {
    return await this.postForJson('/unlock', { email, password });
  }

  async status(): Promise<StatusView> {
    return (await this.getOk('/status')) as StatusView;
  }

  async unlockStatus(): Promise<UnlockStatus> {
    return (await this.getOk('/unlock/status')) as UnlockStatus;
  }

  /** The states of the unlock, from the present one to the one in which it ends. */
  async *watchUnlock(signal?: AbortSignal): AsyncGenerator<UnlockStatus, void, undefined> {
    const response = await this.fetch('/unlock/events', signal === undefined ? {} : { signal });
    for await (const { data } of readServerSentEvents<UnlockStatus>(response)) yield data;
  }

  /** The body of a GET. @throws Error when the status is not 200 */
  async getOk(route: string): Promise<unknown> {
    return bodyOf(await this.get(route));
  }

  async readJson(response: Response): Promise<JsonAnswer> {
    const text = await response.text();
    this.#onAnswer?.(text);
    return { status: response.status, headers: response.headers, body: JSON.parse(text) as JsonAnswer['body'] };
  }
}
