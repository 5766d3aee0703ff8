import { setTimeout as sleep } from 'node:timers/promises';
import { request } from 'undici';
import type { TaskStatus } from '../src/tasks/task.ts';
import type { LoaderUnderTest } from './loader-under-test.ts';
import type { JsonObject, JsonValue } from '../src/json.ts';

/** What the bench wants to know of a task. */
export interface TaskView {
  readonly uid: string;
  readonly status: TaskStatus;
  readonly bytes_done: number;
  readonly result: JsonValue;
  readonly error: string | null;
}

export interface ReceivedEvent {
  readonly event: string;
  readonly data: unknown;
  /** When its last byte was there, on the clock of `monotonicUs`. */
  readonly arrivedAtUs: number;
}

/** Microseconds since this machine's start: the same in all of its processes. */
export function monotonicUs(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

/** A client of the Loader's background tasks. Whatever is not answered 200 is an error. */
export class TaskClient {
  readonly #loader: LoaderUnderTest;
  readonly #signal: AbortSignal;

  constructor(loader: LoaderUnderTest, signal: AbortSignal) {
    this.#loader = loader;
    this.#signal = signal;
  }

  /** Begins a task and answers its uid. @throws Error also while another of the provider runs */
  async create(provider: string, parameters: JsonObject = {}): Promise<string> {
    const body = JSON.stringify({ provider, ...parameters });
    const answer = (await this.#ask('POST', '/', body)) as { readonly uid?: string; readonly message?: string };
    if (answer.uid === undefined) throw new Error(`no ${provider} began: ${answer.message ?? ''}`);
    return answer.uid;
  }

  async get(uid: string): Promise<TaskView> {
    return (await this.#ask('GET', `/tasks/${uid}`)) as TaskView;
  }

  /** The running tasks and those that have just ended. */
  async list(): Promise<readonly Pick<TaskView, 'uid' | 'status'>[]> {
    return Object.values((await this.#ask('GET', '/tasks')) as Record<string, TaskView>);
  }

  /** Newest first. */
  async history(limit: number): Promise<readonly TaskView[]> {
    return ((await this.#ask('GET', `/tasks/history?limit=${limit}`)) as { tasks: TaskView[] }).tasks;
  }

  async cancel(uid: string): Promise<TaskView> {
    return (await this.#ask('DELETE', `/tasks/${uid}`)) as TaskView;
  }

  /** Runs a task that must end well, and answers it. It looks every `pollMs`, without which it looks all the time. */
  async run(provider: string, parameters: JsonObject = {}, pollMs = 0): Promise<TaskView> {
    const uid = await this.create(provider, parameters);
    let task = await this.get(uid);
    while (task.status === 'in_progress') {
      if (pollMs > 0) await sleep(pollMs, undefined, { signal: this.#signal });
      task = await this.get(uid);
    }
    if (task.status !== 'complete') throw new Error(`${provider} is ${task.status}: ${task.error ?? ''}`);
    return task;
  }

  /** The events of a task from its beginning to its end. */
  async *events(uid: string): AsyncGenerator<ReceivedEvent, void, undefined> {
    const url = `${this.#loader.url}/tasks/${uid}/events`;
    const { statusCode, body } = await request(url, {
      headers: this.#loader.headers,
      signal: this.#signal,
      bodyTimeout: 0,
    });
    if (statusCode !== 200) throw new Error(`GET ${url} was answered ${statusCode}`);
    let text = '';
    for await (const chunk of body.setEncoding('utf8') as AsyncIterable<string>) {
      const arrivedAtUs = monotonicUs();
      text += chunk;
      const blocks = text.split('\n\n');
      text = blocks.pop() ?? '';
      for (const block of blocks) {
        const event = /^event: (.+)$/m.exec(block)?.[1];
        const data = /^data: (.+)$/m.exec(block)?.[1];
        if (event !== undefined && data !== undefined) yield { event, data: JSON.parse(data), arrivedAtUs };
      }
    }
  }

  async #ask(method: 'GET' | 'POST' | 'DELETE', path: string, body?: string): Promise<unknown> {
    const answer = await request(this.#loader.url + path, {
      method,
      headers: { ...this.#loader.headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      ...(body === undefined ? {} : { body }),
      signal: this.#signal,
    });
    const text = await answer.body.text();
    if (answer.statusCode !== 200) throw new Error(`${method} ${path} was answered ${answer.statusCode} ${text}`);
    return JSON.parse(text);
  }
}
