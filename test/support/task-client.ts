import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readJson, type JsonAnswer, type TestLoader } from './test-loader.ts';
import { noteSecrets } from '../../lab/test-environment.ts';

/** What POST / and GET /tasks answer. */
export interface SeenTask {
  readonly uid: string;
  readonly status: string;
  readonly progress: number;
  readonly result: unknown;
  readonly provider: string;
}

/** What GET /tasks/{uid} answers. */
export interface SeenDetails extends SeenTask {
  readonly bytes_done: number;
  readonly bytes_total: number | null;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly error: string | null;
  readonly code: string | null;
  readonly attempt: number;
  readonly retry_of: string | null;
  readonly schedule: string | null;
  readonly created_at: string;
  readonly finished_at: string | null;
}

export interface SeenLine {
  readonly line: number;
  readonly time: string;
  readonly level: string;
  readonly text: string;
}

/** One server-sent event. */
export interface SeenEvent {
  readonly event: string;
  readonly id: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** When it arrived, as performance.now() has it. */
  readonly arrivedAt: number;
}

export interface SeenSchedule {
  readonly id: string;
  readonly provider: string;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly cron: string;
  readonly timezone: string;
  readonly catch_up: boolean;
  readonly created_at: string;
  readonly next_run: string | null;
  readonly last_run: {
    readonly due_at: string;
    readonly outcome: string;
    readonly task: string | null;
    readonly reason: string | null;
  } | null;
}

export interface HistoryPage {
  readonly tasks: readonly SeenDetails[];
  readonly next_cursor: string | null;
}

/** A new API key, which must not be in logs and answers. */
export function newApiKey(): string {
  const key = `key-${randomBytes(16).toString('hex')}`;
  noteSecrets(key);
  return key;
}

/** The routes of the tasks and schedules, as an operator's program calls them. */
export class TaskClient {
  readonly #loader: TestLoader;

  constructor(loader: TestLoader) {
    this.#loader = loader;
  }

  async get(route: string): Promise<JsonAnswer> {
    return await readJson(await fetch(this.#loader.url + route, { headers: this.#loader.authorization }));
  }

  async delete(route: string, signal?: AbortSignal): Promise<JsonAnswer> {
    const options = {
      method: 'DELETE',
      headers: this.#loader.authorization,
      ...(signal === undefined ? {} : { signal }),
    };
    return await readJson(await fetch(this.#loader.url + route, options));
  }

  async post(provider: string, parameters: object = {}): Promise<JsonAnswer> {
    return await this.#loader.postForJson('/', { provider, ...parameters });
  }

  /** Begins a task, and insists; answers its uid. */
  async begin(provider: string, parameters: object = {}): Promise<string> {
    const { status, body } = await this.post(provider, parameters);
    assert.equal(status, 200, JSON.stringify(body));
    assert.equal(typeof body['uid'], 'string', `there is no task: ${JSON.stringify(body)}`);
    return body['uid'] as string;
  }

  /** Begins a task, and waits for its end. */
  async run(provider: string, parameters: object = {}): Promise<SeenDetails> {
    return await this.ended(await this.begin(provider, parameters));
  }

  /** Prefetches resources of the folder `models`; answers the uid. */
  async beginPrefetch(...names: readonly string[]): Promise<string> {
    return await this.begin('prefetch', prefetchOf(...names));
  }

  async prefetch(...names: readonly string[]): Promise<SeenDetails> {
    return await this.ended(await this.beginPrefetch(...names));
  }

  /** GET /tasks. */
  async list(): Promise<Readonly<Record<string, SeenTask>>> {
    return (await this.#insist('/tasks')) as unknown as Readonly<Record<string, SeenTask>>;
  }

  async history(query = ''): Promise<HistoryPage> {
    return (await this.#insist(`/tasks/history${query}`)) as unknown as HistoryPage;
  }

  /** All of the history, page by page. */
  async wholeHistory(query = 'limit=200'): Promise<SeenDetails[]> {
    const tasks: SeenDetails[] = [];
    let page = await this.history(`?${query}`);
    for (;;) {
      tasks.push(...page.tasks);
      if (page.next_cursor === null) return tasks;
      page = await this.history(`?${query}&cursor=${page.next_cursor}`);
    }
  }

  async details(uid: string): Promise<SeenDetails> {
    return (await this.#insist(`/tasks/${uid}`)) as unknown as SeenDetails;
  }

  async lines(uid: string, after?: number): Promise<SeenLine[]> {
    const query = after === undefined ? '' : `?after=${after}`;
    return (await this.#insist(`/tasks/${uid}/logs${query}`))['lines'] as SeenLine[];
  }

  async cancel(uid: string): Promise<SeenDetails> {
    const { status, body } = await this.delete(`/tasks/${uid}`);
    assert.equal(status, 200, JSON.stringify(body));
    return body as unknown as SeenDetails;
  }

  async schedule(body: object): Promise<SeenSchedule> {
    const answer = await this.#loader.postForJson('/schedules', body);
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    return answer.body as unknown as SeenSchedule;
  }

  async schedules(): Promise<SeenSchedule[]> {
    return (await this.#insist('/schedules'))['schedules'] as SeenSchedule[];
  }

  /** GET /tasks/{uid}/events, its body unread. */
  async openEvents(uid: string, lastEventId?: string, signal: AbortSignal | null = null): Promise<Response> {
    const headers = {
      ...this.#loader.authorization,
      ...(lastEventId === undefined ? {} : { 'last-event-id': lastEventId }),
    };
    return await fetch(`${this.#loader.url}/tasks/${uid}/events`, { headers, signal });
  }

  /** The events after `lastEventId` as they come; its `return` closes the connection. */
  async *events(uid: string, lastEventId?: string): AsyncGenerator<SeenEvent, void, undefined> {
    const response = await this.openEvents(uid, lastEventId);
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('content-type'), 'text/event-stream');
    let text = '';
    const decoder = new TextDecoder();
    for await (const chunk of response.body ?? []) {
      text += decoder.decode(chunk as Uint8Array, { stream: true });
      const blocks = text.split('\n\n');
      text = blocks.pop() ?? '';
      for (const block of blocks) {
        const event = parseEvent(block);
        if (event !== undefined) yield event;
      }
    }
    assert.equal(text, '', 'the stream ended within an event');
  }

  /** Waits for the end of a task by its events. */
  async ended(uid: string): Promise<SeenDetails> {
    for await (const { event, data } of this.events(uid)) {
      if (event === 'end') return data as unknown as SeenDetails;
    }
    throw new Error('the events ended without one');
  }

  async #insist(route: string): Promise<Readonly<Record<string, unknown>>> {
    const { status, body } = await this.get(route);
    assert.equal(status, 200, `${route}: ${JSON.stringify(body)}`);
    return body;
  }
}

/** Parameters of a prefetch of resources in the folder `models`. */
export function prefetchOf(...names: readonly string[]): { resources: { folder: string; filename: string }[] } {
  return { resources: names.map((filename) => ({ folder: 'models', filename })) };
}

function parseEvent(block: string): SeenEvent | undefined {
  if (block.startsWith(':')) return undefined;
  const [, event = '', id = '', data = ''] = /^event: (\w+)\nid: ([\d.]+)\ndata: (.*)$/.exec(block) ?? [];
  assert.notEqual(event, '', `no event: ${block}`);
  return { event, id, data: JSON.parse(data) as Record<string, unknown>, arrivedAt: performance.now() };
}
