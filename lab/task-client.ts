import { bodyOf, type JsonAnswer } from './json-answer.ts';
import type { LoaderClient } from './loader-client.ts';
import { readServerSentEvents, type ReceivedEvent } from './server-sent-events.ts';

/** What POST / and GET /tasks return of a task. */
export interface TaskSummary {
  readonly uid: string;
  readonly status: string;
  readonly progress: number;
  readonly result: unknown;
  readonly provider: string;
}

/** What GET /tasks/{uid} returns. */
export interface TaskView extends TaskSummary {
  readonly bytes_done: number;
  readonly bytes_total: number | null;
  readonly waiting_for: string | null;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly error: string | null;
  readonly code: string | null;
  readonly attempt: number;
  readonly retry_of: string | null;
  readonly schedule: string | null;
  readonly created_at: string;
  readonly finished_at: string | null;
}

export interface LogLine {
  readonly line: number;
  readonly time: string;
  readonly level: string;
  readonly text: string;
}

/** The data of `log`, of `progress` (its four fields) or of `end`. */
export type TaskEventData = Partial<TaskView> & Partial<LogLine>;

export type TaskEvent = ReceivedEvent<TaskEventData>;

export interface ScheduleView {
  readonly id: string;
  readonly name: string | null;
  readonly provider: string;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly cron: string;
  readonly timezone: string;
  readonly catch_up: boolean;
  readonly paused: boolean;
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
  readonly tasks: readonly TaskView[];
  readonly next_cursor: string | null;
}

/** The routes of tasks and schedules. What returns no `Response` or `JsonAnswer` takes the status 200 only. */
export class TaskClient {
  readonly #loader: LoaderClient;

  constructor(loader: LoaderClient) {
    this.#loader = loader;
  }

  async post(provider: string, parameters: object = {}): Promise<JsonAnswer> {
    return await this.#loader.postForJson('/', { provider, ...parameters });
  }

  /** Begins a task and returns its uid. @throws Error also when another task of the provider runs */
  async begin(provider: string, parameters: object = {}): Promise<string> {
    const body = bodyOf(await this.post(provider, parameters));
    if (typeof body['uid'] !== 'string' || 'message' in body)
      throw new Error(`no ${provider} began: ${JSON.stringify(body)}`);
    return body['uid'];
  }

  /** Begins a task and waits for its end. */
  async run(provider: string, parameters: object = {}): Promise<TaskView> {
    return await this.ended(await this.begin(provider, parameters));
  }

  /** Runs a task that must become complete. `onProgress` is given the data of each event `progress`. */
  async complete(
    provider: string,
    parameters: object = {},
    onProgress?: (data: TaskEventData) => void,
  ): Promise<TaskView> {
    const task = await this.ended(await this.begin(provider, parameters), onProgress);
    if (task.status !== 'complete') throw new Error(`${provider} is ${task.status}: ${task.error ?? ''}`);
    return task;
  }

  /** Begins the prefetch of resources of the folder `models`, and returns the uid. */
  async beginPrefetch(...names: readonly string[]): Promise<string> {
    return await this.begin('prefetch', prefetchOf(...names));
  }

  async prefetch(...names: readonly string[]): Promise<TaskView> {
    return await this.ended(await this.beginPrefetch(...names));
  }

  /** The tasks that run, and those that have just ended, by uid. */
  async list(): Promise<Readonly<Record<string, TaskSummary>>> {
    return (await this.#loader.getOk('/tasks')) as Readonly<Record<string, TaskSummary>>;
  }

  /** `query` is empty or begins with a question mark. */
  async history(query = ''): Promise<HistoryPage> {
    return (await this.#loader.getOk(`/tasks/history${query}`)) as HistoryPage;
  }

  /** All of the history, page by page. */
  async wholeHistory(query = 'limit=200'): Promise<TaskView[]> {
    const tasks: TaskView[] = [];
    let page = await this.history(`?${query}`);
    for (;;) {
      tasks.push(...page.tasks);
      if (page.next_cursor === null) return tasks;
      page = await this.history(`?${query}&cursor=${page.next_cursor}`);
    }
  }

  async details(uid: string): Promise<TaskView> {
    return (await this.#loader.getOk(`/tasks/${uid}`)) as TaskView;
  }

  async lines(uid: string, after?: number): Promise<LogLine[]> {
    const query = after === undefined ? '' : `?after=${after}`;
    return ((await this.#loader.getOk(`/tasks/${uid}/logs${query}`)) as { lines: LogLine[] }).lines;
  }

  async cancel(uid: string): Promise<TaskView> {
    const body: unknown = bodyOf(await this.#loader.delete(`/tasks/${uid}`));
    return body as TaskView;
  }

  async schedule(schedule: object): Promise<ScheduleView> {
    const body: unknown = bodyOf(await this.#loader.postForJson('/schedules', schedule));
    return body as ScheduleView;
  }

  async schedules(): Promise<ScheduleView[]> {
    return ((await this.#loader.getOk('/schedules')) as { schedules: ScheduleView[] }).schedules;
  }

  /** GET /tasks/{uid}/events, its body unread. */
  async openEvents(uid: string, lastEventId?: string, signal: AbortSignal | null = null): Promise<Response> {
    const headers = lastEventId === undefined ? {} : { 'last-event-id': lastEventId };
    return await this.#loader.fetch(`/tasks/${uid}/events`, { headers, signal });
  }

  /** The events after `lastEventId` as they come; its `return` closes the connection. */
  async *events(uid: string, lastEventId?: string): AsyncGenerator<TaskEvent, void, undefined> {
    yield* readServerSentEvents<TaskEventData>(await this.openEvents(uid, lastEventId));
  }

  /** Waits for the end of a task by its events. `onProgress` is given the data of each event `progress`. */
  async ended(uid: string, onProgress?: (data: TaskEventData) => void): Promise<TaskView> {
    for await (const { event, data } of this.events(uid)) {
      if (event === 'progress') onProgress?.(data);
      if (event === 'end') return data as TaskView;
    }
    throw new Error('the events ended without one');
  }
}

/** Parameters of a prefetch of resources of the folder `models`. */
export function prefetchOf(...names: readonly string[]): { resources: { folder: string; filename: string }[] } {
  return { resources: names.map((filename) => ({ folder: 'models', filename })) };
}
