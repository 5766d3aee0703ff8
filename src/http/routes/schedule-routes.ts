import type { Tasks } from '../../tasks/tasks.ts';
import { failures, INVALID_INPUT, ref, type HttpApp } from '../schemas/responses.ts';
import {
  NEW_SCHEDULE,
  SCHEDULE,
  SCHEDULE_CHANGE,
  SCHEDULE_LIST,
  SCHEDULE_PARAMS,
  toScheduleView,
  toSettings,
} from '../schemas/schedule.ts';
import { TASK, toTaskView } from '../schemas/task.ts';

export interface ScheduleRoutesOptions {
  readonly tasks: Pick<Tasks, 'schedules'>;
}

const KEYED = { access: 'keyed' } as const;
/** What a new schedule has where its body is silent. */
const DEFAULTS = { parameters: {}, timezone: 'UTC', catchUp: false };

/** POST and GET /schedules, PATCH, DELETE and run of /schedules/{id}: tasks that begin at set times. All need a key. */
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
    ({ body: { provider, cron, ...settings } }) => {
      return toScheduleView(tasks.schedules.create({ ...DEFAULTS, ...toSettings(settings), provider, cron }));
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

  app.patch(
    '/schedules/:id',
    {
      schema: {
        operationId: 'changeSchedule',
        summary: 'Change, pause or resume a schedule',
        tags: ['schedules'],
        params: SCHEDULE_PARAMS,
        body: SCHEDULE_CHANGE,
        response: { ...failures(404, 413), ...INVALID_INPUT, 200: ref(SCHEDULE, 'The schedule as it is now.') },
      },
      config: KEYED,
    },
    ({ params, body }) => toScheduleView(tasks.schedules.change(params.id, toSettings(body))),
  );

  app.post(
    '/schedules/:id/run',
    {
      schema: {
        operationId: 'runSchedule',
        summary: 'Begin a task of a schedule now',
        tags: ['schedules'],
        params: SCHEDULE_PARAMS,
        response: { ...failures(404, 409), 200: ref(TASK, 'The task.') },
      },
      config: KEYED,
    },
    ({ params }) => toTaskView(tasks.schedules.run(params.id)),
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
