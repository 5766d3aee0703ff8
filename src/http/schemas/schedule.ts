import type { Static } from 'typebox';
import { JSON_OBJECT, nullable, textEnum, Type } from '../../json-schemas.ts';
import type { DueTime, Schedule } from '../../tasks/schedule.ts';
import type { ScheduleSettings } from '../../tasks/schedules.ts';
import { ref, TIME } from './responses.ts';
import { toTime } from './task.ts';

const MAX_CRON_LENGTH = 256;
const MAX_NAME_LENGTH = 100;
const EXAMPLE = {
  name: 'nightly check',
  provider: 'verify',
  parameters: {},
  cron: '30 3 * * 1-5',
  timezone: 'UTC',
  catch_up: false,
  paused: false,
};
const ID = '5d3e1c9e-1c0f-4d3a-8f0e-8f2a5b1c7e01';

const CRON = Type.String({
  maxLength: MAX_CRON_LENGTH,
  description: 'A cron pattern of five fields, or of six, of which the first is the seconds.',
});

/** The schema of the provider that is named checks `parameters`. */
const SETTINGS = {
  name: Type.Optional(nullable(Type.String({ maxLength: MAX_NAME_LENGTH, description: 'For people.' }))),
  parameters: Type.Optional(JSON_OBJECT),
  timezone: Type.Optional(Type.String({ description: 'An IANA time zone; UTC if absent.' })),
  catch_up: Type.Optional(Type.Boolean({ description: 'Whether one task makes up for times that were missed.' })),
  paused: Type.Optional(Type.Boolean({ description: 'Whether it begins nothing until it goes on.' })),
};

export const NEW_SCHEDULE = Type.Object(
  { provider: Type.String({ description: 'The kind of task.' }), cron: CRON, ...SETTINGS },
  { additionalProperties: false, description: 'Tasks to begin, and when.', examples: [EXAMPLE] },
);

export const SCHEDULE_CHANGE = Type.Object(
  { cron: Type.Optional(CRON), ...SETTINGS },
  { additionalProperties: false, description: 'What changes; the rest stays.', examples: [{ paused: true }] },
);

export const SCHEDULE_PARAMS = Type.Object({
  id: Type.String({ description: 'The id of the schedule.', examples: [ID] }),
});

const LAST_RUN = Type.Object({
  due_at: TIME,
  outcome: textEnum(['started', 'skipped', 'missed', 'failed']),
  task: nullable(Type.String({ description: 'The uid of the task that was started.' })),
  reason: nullable(Type.String({ description: 'Why no task was started.' })),
});

export const SCHEDULE = Type.Object(
  {
    id: Type.String({ description: 'A UUID.' }),
    name: nullable(Type.String()),
    provider: Type.String(),
    parameters: JSON_OBJECT,
    cron: Type.String(),
    timezone: Type.String(),
    catch_up: Type.Boolean(),
    paused: Type.Boolean(),
    created_at: TIME,
    next_run: nullable(
      Type.String({ ...TIME, description: 'ISO 8601, UTC; null while it is paused, and after its last time.' }),
    ),
    last_run: nullable(LAST_RUN),
  },
  {
    $id: 'Schedule',
    description: 'A schedule, with what became of its last time.',
    examples: [
      {
        id: ID,
        ...EXAMPLE,
        created_at: '2026-01-02T03:04:05.678Z',
        next_run: '2026-01-05T03:30:00.000Z',
        last_run: null,
      },
    ],
  },
);

export const SCHEDULE_LIST = Type.Object(
  { schedules: Type.Array(ref(SCHEDULE)) },
  { description: 'All schedules, in the order of their creation.', examples: [{ schedules: [] }] },
);

export function toScheduleView(schedule: Schedule): Static<typeof SCHEDULE> {
  const { id, name, provider, parameters, cron, timezone, catchUp, isPaused, nextDueAtMs, lastDue } = schedule;
  return {
    id,
    name,
    provider,
    parameters,
    cron,
    timezone,
    catch_up: catchUp,
    paused: isPaused,
    created_at: toTime(schedule.createdAtMs),
    next_run: nextDueAtMs === null ? null : toTime(nextDueAtMs),
    last_run: lastDue === null ? null : toLastRun(lastDue),
  };
}

function toLastRun({ dueAtMs, outcome, task, reason }: DueTime): Static<typeof LAST_RUN> {
  return { due_at: toTime(dueAtMs), outcome, task, reason };
}

/** The settings that stand in a body, in the names of Schedule. */
export function toSettings(body: Static<typeof SCHEDULE_CHANGE>): Partial<ScheduleSettings> {
  const { catch_up: catchUp, paused: isPaused, ...others } = body;
  return { ...others, ...(catchUp !== undefined && { catchUp }), ...(isPaused !== undefined && { isPaused }) };
}
