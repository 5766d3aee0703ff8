import { FIRST_POSITION, parseEventPosition, type TaskEvent } from '../../tasks/task-events.ts';
import type { Tasks } from '../../tasks/tasks.ts';
import { abortWhenClientLeaves } from '../bodies/client-abort.ts';
import { sendEvents, type ServerEvent } from '../bodies/send-events.ts';
import { failures, INVALID_INPUT, ref, streamResponse, type HttpApp } from '../schemas/responses.ts';
import {
  EVENTS_HEADERS,
  HISTORY,
  HISTORY_QUERY,
  LOG_LINES,
  LOGS_QUERY,
  NEW_TASK,
  NEW_TASK_RESPONSE,
  RUNNING_TASKS,
  TASK,
  TASK_PARAMS,
  toBusy,
  toLogLine,
  toServerEvent,
  toTaskSummary,
  toTaskView,
} from '../schemas/task.ts';

export interface TaskRoutesOptions {
  readonly tasks: Pick<Tasks, 'runner'>;
  readonly clientStallTimeoutMs: number;
}

const KEYED = { access: 'keyed' } as const;
const TAGS = ['tasks'];
const DEFAULT_PAGE = 50;

/** POST /, GET and DELETE /tasks...: background tasks, the original's two routes first. All of them need a key. */
export function registerTaskRoutes(app: HttpApp, { tasks, clientStallTimeoutMs }: TaskRoutesOptions): void {
  app.post(
    '/',
    {
      schema: {
        operationId: 'createTask',
        summary: 'Begin a task',
        tags: TAGS,
        body: NEW_TASK,
        response: { ...failures(413), ...INVALID_INPUT, 200: NEW_TASK_RESPONSE },
      },
      config: KEYED,
    },
    ({ body }) => {
      const { provider, ...parameters } = body;
      const { runner } = tasks;
      const task = runner.create(provider, parameters);
      // The original has no error for this: its clients look at the message.
      return task === undefined ? toBusy(runner.running(provider)) : toTaskSummary(task);
    },
  );

  app.get(
    '/tasks',
    {
      schema: {
        operationId: 'listTasks',
        summary: 'The running tasks',
        tags: TAGS,
        response: { ...failures(), 200: RUNNING_TASKS },
      },
      config: KEYED,
    },
    () => Object.fromEntries(tasks.runner.list().map((task) => [task.uid, toTaskSummary(task)])),
  );

  app.get(
    '/tasks/history',
    {
      schema: {
        operationId: 'listHistory',
        summary: 'All tasks, page by page',
        tags: TAGS,
        querystring: HISTORY_QUERY,
        response: { ...failures(), ...INVALID_INPUT, 200: HISTORY },
      },
      config: KEYED,
    },
    ({ query }) => {
      const page = tasks.runner.history({ ...query, limit: Number(query.limit ?? DEFAULT_PAGE) });
      return { tasks: page.tasks.map(toTaskView), next_cursor: page.nextCursor };
    },
  );

  app.get(
    '/tasks/:uid',
    {
      schema: {
        operationId: 'getTask',
        summary: 'A task',
        tags: TAGS,
        params: TASK_PARAMS,
        response: { ...failures(404), 200: ref(TASK, 'The task.') },
      },
      config: KEYED,
    },
    ({ params }) => toTaskView(tasks.runner.find(params.uid)),
  );

  app.delete(
    '/tasks/:uid',
    {
      schema: {
        operationId: 'cancelTask',
        summary: 'Cancel a task',
        tags: TAGS,
        params: TASK_PARAMS,
        response: { ...failures(404), 200: ref(TASK, 'The task when its side effects have stopped.') },
      },
      config: KEYED,
    },
    async ({ params }) => toTaskView(await tasks.runner.cancel(params.uid)),
  );

  app.post(
    '/tasks/:uid/retry',
    {
      schema: {
        operationId: 'retryTask',
        summary: 'Begin a task once more',
        tags: TAGS,
        params: TASK_PARAMS,
        response: { ...failures(404, 409), 200: ref(TASK, 'The new task; `retry_of` names the earlier one.') },
      },
      config: KEYED,
    },
    ({ params }) => toTaskView(tasks.runner.retry(params.uid)),
  );

  app.get(
    '/tasks/:uid/logs',
    {
      schema: {
        operationId: 'getTaskLog',
        summary: 'The log of a task',
        tags: TAGS,
        params: TASK_PARAMS,
        querystring: LOGS_QUERY,
        response: { ...failures(404), ...INVALID_INPUT, 200: LOG_LINES },
      },
      config: KEYED,
    },
    ({ params, query }) => ({ lines: tasks.runner.lines(params.uid, Number(query.after ?? 0)).map(toLogLine) }),
  );

  app.get(
    '/tasks/:uid/events',
    {
      schema: {
        operationId: 'watchTask',
        summary: 'Follow a task',
        tags: TAGS,
        params: TASK_PARAMS,
        headers: EVENTS_HEADERS,
        response: {
          ...failures(404),
          200: streamResponse('text/event-stream', 'Events `log`, `progress` and `end` of the task.'),
          204: { type: 'null', description: 'Nothing follows the event that the client saw last.' },
        },
      },
      config: KEYED,
      exposeHeadRoute: false,
    },
    async ({ params, headers }, reply) => {
      const lastId = headers['last-event-id'];
      const position = (lastId === undefined ? undefined : parseEventPosition(lastId)) ?? FIRST_POSITION;
      // The status tells a client that connects again on its own to stop (WHATWG HTML, section 9.2.3).
      if (tasks.runner.isPastEnd(params.uid, position)) return await reply.code(204).send(null);
      const abort = abortWhenClientLeaves(reply);
      const events = tasks.runner.watch(params.uid, position, abort.signal);
      await sendEvents(reply, toServerEvents(events), { stallTimeoutMs: clientStallTimeoutMs, abort });
      return reply;
    },
  );
}

async function* toServerEvents(events: AsyncIterable<TaskEvent>): AsyncGenerator<ServerEvent, void, undefined> {
  for await (const event of events) yield toServerEvent(event);
}
