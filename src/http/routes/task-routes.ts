import type { FastifyInstance } from 'fastify';
import { FIRST_POSITION, parseEventPosition, type TaskEvent } from '../../tasks/task-events.ts';
import type { Tasks } from '../../tasks/tasks.ts';
import { TASK_STATUSES, type TaskStatus } from '../../tasks/task.ts';
import { abortWhenClientLeaves } from '../bodies/client-abort.ts';
import { sendEvents, type ServerEvent } from '../bodies/send-events.ts';
import { toLogLine, toServerEvent, toTaskView, toTaskSummary } from '../schemas/task.ts';
import type { JsonObject } from '../../json.ts';

export interface TaskRoutesOptions {
  readonly tasks: Tasks;
  readonly clientStallTimeoutMs: number;
}

const KEYED = { access: 'keyed' } as const;
const DEFAULT_PAGE = 50;
const BUSY_MESSAGE = 'A job with the same provider is already in progress';

/** The provider's own schema is for the rest of it. */
const CREATE_BODY = {
  type: 'object',
  required: ['provider'],
  properties: { provider: { type: 'string' } },
} as const;

const HISTORY_QUERY = {
  type: 'object',
  properties: {
    provider: { type: 'string' },
    status: { type: 'string', enum: TASK_STATUSES },
    limit: { type: 'string', format: 'page-limit' },
    cursor: { type: 'string', format: 'count' },
  },
} as const;

interface HistoryQuery {
  readonly provider?: string;
  readonly status?: TaskStatus;
  readonly limit?: string;
  readonly cursor?: string;
}

const LOGS_QUERY = { type: 'object', properties: { after: { type: 'string', format: 'count' } } } as const;

interface TaskParams {
  readonly uid: string;
}

/** POST /, GET and DELETE /tasks...: background tasks, the original's two routes first. All of them want a key. */
export function registerTaskRoutes(app: FastifyInstance, { tasks, clientStallTimeoutMs }: TaskRoutesOptions): void {
  app.post<{ Body: JsonObject & { readonly provider: string } }>(
    '/',
    { schema: { body: CREATE_BODY }, config: KEYED },
    ({ body }) => {
      const { provider, ...parameters } = body;
      const task = tasks.runner.create(provider, parameters);
      return task === undefined ? { message: BUSY_MESSAGE } : toTaskSummary(task);
    },
  );

  app.get('/tasks', { config: KEYED }, () =>
    Object.fromEntries(tasks.runner.list().map((task) => [task.uid, toTaskSummary(task)])),
  );

  app.get<{ Querystring: HistoryQuery }>(
    '/tasks/history',
    { schema: { querystring: HISTORY_QUERY }, config: KEYED },
    ({ query }) => {
      const page = tasks.runner.history({ ...query, limit: Number(query.limit ?? DEFAULT_PAGE) });
      return { tasks: page.tasks.map(toTaskView), next_cursor: page.nextCursor };
    },
  );

  app.get<{ Params: TaskParams }>('/tasks/:uid', { config: KEYED }, ({ params }) =>
    toTaskView(tasks.runner.find(params.uid)),
  );

  app.delete<{ Params: TaskParams }>('/tasks/:uid', { config: KEYED }, async ({ params }) =>
    toTaskView(await tasks.runner.cancel(params.uid)),
  );

  app.get<{ Params: TaskParams; Querystring: { readonly after?: string } }>(
    '/tasks/:uid/logs',
    { schema: { querystring: LOGS_QUERY }, config: KEYED },
    ({ params, query }) => ({ lines: tasks.runner.lines(params.uid, Number(query.after ?? 0)).map(toLogLine) }),
  );

  app.get<{ Params: TaskParams }>(
    '/tasks/:uid/events',
    { config: KEYED, exposeHeadRoute: false },
    async ({ params, headers }, reply) => {
      const lastId = headers['last-event-id'];
      const position = (typeof lastId === 'string' ? parseEventPosition(lastId) : undefined) ?? FIRST_POSITION;
      // Tells a client that comes back by itself to stay away (WHATWG HTML, section 9.2.3).
      if (tasks.runner.isPastEnd(params.uid, position)) return await reply.code(204).send();
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
