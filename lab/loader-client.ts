import { createHash } from 'node:crypto';
import { openAsBlob } from 'node:fs';
import type { UnlockStatus } from '../src/unlock/unlock-service.ts';

export interface LoaderAnswer {
  readonly status: number;
  /** The JSON text as it came. */
  readonly text: string;
}

export interface ReceivedModel {
  /** SHA-256, hex. */
  readonly sha256: string;
  /** Bytes. */
  readonly length: number;
}

/** An event of a task; its data depends on its name. */
export interface TaskEvent {
  readonly event: string;
  readonly data: unknown;
}

/** What a neighbour of the Loader does with it, over HTTP. Models are streamed both ways. */
export class LoaderClient {
  readonly #url: string;
  readonly #signal: AbortSignal;
  readonly #headers: Readonly<Record<string, string>>;

  /** `signal` ends whatever request is under way. */
  constructor(url: string, apiKey: string, signal: AbortSignal) {
    this.#url = url;
    this.#signal = signal;
    this.#headers = { authorization: `Bearer ${apiKey}` };
  }

  async login(email: string, password: string): Promise<LoaderAnswer> {
    const response = await this.#postJson('/login', { email, password });
    return { status: response.status, text: await response.text() };
  }

  /** Uploads the file at `path` as the resource `name` of `folder`. @throws Error when it was refused */
  async upload(name: string, folder: string, path: string): Promise<void> {
    const form = new FormData();
    form.append('folder', folder);
    form.append('data', await openAsBlob(path), name);
    const response = await fetch(`${this.#url}/upload/${encodeURIComponent(name)}`, {
      method: 'POST',
      headers: this.#headers,
      body: form,
      signal: this.#signal,
    });
    await assertOk(response);
    await response.arrayBuffer();
  }

  /** Loads a resource and digests it as it comes. @throws Error when it was refused, or broke off */
  async load(name: string, folder: string): Promise<ReceivedModel> {
    const response = await this.#postJson(`/load/${encodeURIComponent(name)}`, { filename: name, folder });
    await assertOk(response);
    const hash = createHash('sha256');
    let length = 0;
    for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
      hash.update(chunk);
      length += chunk.length;
    }
    return { sha256: hash.digest('hex'), length };
  }

  /** Starts an unlock. @throws Error when it was refused */
  async startUnlock(email: string, password: string): Promise<void> {
    const response = await this.#postJson('/unlock', { email, password });
    await assertOk(response);
    await response.arrayBuffer();
  }

  /** The states of the unlock, from the present one to that in which it ends. */
  async *watchUnlock(): AsyncGenerator<UnlockStatus, void, undefined> {
    for await (const { data } of this.#events('/unlock/events')) yield data as UnlockStatus;
  }

  /** Starts a task; answers its uid. @throws Error when it was refused */
  async startTask(provider: string, parameters: Readonly<Record<string, unknown>>): Promise<string> {
    const response = await this.#postJson('/', { provider, ...parameters });
    await assertOk(response);
    const { uid, message } = (await response.json()) as { uid?: string; message?: string };
    if (uid === undefined) throw new Error(message);
    return uid;
  }

  /** The events of a task, from its beginning to its end. */
  watchTask(uid: string): AsyncGenerator<TaskEvent, void, undefined> {
    return this.#events(`/tasks/${uid}/events`);
  }

  async *#events(route: string): AsyncGenerator<TaskEvent, void, undefined> {
    const response = await fetch(this.#url + route, { headers: this.#headers, signal: this.#signal });
    await assertOk(response);
    const decoder = new TextDecoder();
    let rest = '';
    for await (const bytes of (response.body ?? []) as AsyncIterable<Uint8Array>) {
      const events = (rest + decoder.decode(bytes, { stream: true })).split('\n\n');
      rest = events.pop() ?? '';
      for (const text of events) {
        const event = /^event: (.*)$/m.exec(text)?.[1];
        const data = /^data: (.*)$/m.exec(text)?.[1];
        if (event !== undefined && data !== undefined) yield { event, data: JSON.parse(data) as unknown };
      }
    }
  }

  async #postJson(route: string, body: unknown): Promise<Response> {
    return await fetch(this.#url + route, {
      method: 'POST',
      headers: { ...this.#headers, 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal: this.#signal,
    });
  }
}

async function assertOk(response: Response): Promise<void> {
  if (!response.ok) throw new Error(`the Loader answered ${response.status} ${await response.text()}`);
}
