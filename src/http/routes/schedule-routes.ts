import type { FastifyInstance } from 'fastify';
import type { Tasks } from '../../tasks/tasks.ts';
import { toScheduleView } from '../schemas/task.ts';
import type { JsonObject } from '../../json.ts';

interface ScheduleBody {
  readonly provider: string;
  readonly parameters?: JsonObject;
  readonly cron: string;
  readonly timezone?: string;
  readonly catch_up?: boolean;
}

const MAX_CRON_LENGTH = 256;
const KEYED = { access: 'keyed' } as const;

const SCHEDULE_BODY = {
  type: 'object',
  required: ['provider', 'cron'],
  additionalProperties: false,
  properties: {
    provider: { type: 'string' },
    parameters: { type: 'object' },
    cron: { type: 'string', maxLength: MAX_CRON_LENGTH },
    timezone: { type: 'string' },
    catch_up: { type: 'boolean' },
  },
} as const;

/** POST and GET /schedules, DELETE /schedules/{id}: tasks that begin by themselves. All of them want a key. */
export function registerScheduleRoutes(app: FastifyInstance, { tasks }: { readonly tasks: Tasks }): void {
  app.post<{ Body: ScheduleBody }>('/schedules', { schema: { body: SCHEDULE_BODY }, config: KEYED }, ({ body }) => {
    const { provider, parameters = {}, cron, timezone = 'UTC', catch_up: catchUp = false } = body;
    return toScheduleView(tasks.schedules.create({ provider, parameters, cron, timezone, catchUp }));
  });

  app.get('/schedules', { config: KEYED }, () => ({ schedules: tasks.schedules.list().map(toScheduleView) }));

  app.delete<{ Params: { readonly id: string } }>('/schedules/:id', { config: KEYED }, ({ params }) =>
    toScheduleView(tasks.schedules.remove(params.id)),
  );
}
