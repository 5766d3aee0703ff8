import type { Tasks } from '../../tasks/tasks.ts';
import { failures, INVALID_INPUT, ref, type HttpApp } from '../schemas/responses.ts';
import { NEW_SCHEDULE, SCHEDULE, SCHEDULE_LIST, SCHEDULE_PARAMS, toScheduleView } from '../schemas/schedule.ts';

export interface ScheduleRoutesOptions {
  readonly tasks: Pick<Tasks, 'schedules'>;
}

const KEYED = { access: 'keyed' } as const;

/** POST and GET /schedules, DELETE /schedules/{id}: tasks that begin at set times. All of these routes need a key. */
export function registerScheduleRoutes(app: HttpApp, { tasks }: ScheduleRoutesOptions): void {
  app.post(
    '/schedules',
    {
      schema: {
        operationId: 'createSchedule',
        summary: 'Add a schedule',
        tags: ['schedules'],
        body: NEW_SCHEDULE,
        response: { ...failures(409, 413), ...INVALID_INPUT, 200: ref(SCHEDULE, 'The new schedule.') },
      },
      config: KEYED,
    },
    ({ body }) => {
      const { provider, parameters = {}, cron, timezone = 'UTC', catch_up: catchUp = false } = body;
      return toScheduleView(tasks.schedules.create({ provider, parameters, cron, timezone, catchUp }));
    },
  );

  app.get(
    '/schedules',
    {
      schema: {
        operationId: 'listSchedules',
        summary: 'All schedules',
        tags: ['schedules'],
        response: { ...failures(), 200: SCHEDULE_LIST },
      },
      config: KEYED,
    },
    () => ({ schedules: tasks.schedules.list().map(toScheduleView) }),
  );

  app.delete(
    '/schedules/:id',
    {
      schema: {
        operationId: 'removeSchedule',
        summary: 'Remove a schedule',
        tags: ['schedules'],
        params: SCHEDULE_PARAMS,
        response: { ...failures(404), 200: ref(SCHEDULE, 'The schedule as it was.') },
      },
      config: KEYED,
    },
    ({ params }) => toScheduleView(tasks.schedules.remove(params.id)),
  );
}
