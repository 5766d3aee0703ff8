import type { Static } from 'typebox';
import type { ApiClientStatus } from '../../api-client/api-client.ts';
import { ERROR_CODE, nullable, textEnum, Type } from '../../json-schemas.ts';
import type { Problem } from '../../readiness.ts';

export const HEALTH = Type.Object(
  { status: textEnum(['healthy']) },
  { description: 'The process serves requests.', examples: [{ status: 'healthy' }] },
);

export const READY = Type.Object(
  { ready: Type.Boolean() },
  { description: 'All of its work can be done.', examples: [{ ready: true }] },
);

const PROBLEM = Type.Object({ code: ERROR_CODE, detail: Type.String({ description: 'What to do.' }) });

/** It has the two fields of every error, those of the first problem. */
export const NOT_READY = Type.Object(
  {
    ready: Type.Optional(Type.Boolean({ description: 'False; absent while the Loader is stopping.' })),
    detail: Type.String(),
    code: ERROR_CODE,
    reasons: Type.Optional(Type.Array(PROBLEM, { description: 'All of them; absent while the Loader is stopping.' })),
  },
  {
    description: "Something is missing: no user is logged in, a folder can't be used, or the Loader is stopping.",
    examples: [
      {
        ready: false,
        detail: 'No user is logged in: POST /login first.',
        code: 'not_authenticated',
        reasons: [{ code: 'not_authenticated', detail: 'No user is logged in: POST /login first.' }],
      },
    ],
  },
);

export function toNotReady(problems: readonly [Problem, ...Problem[]]): Static<typeof NOT_READY> {
  const [{ code, detail }] = problems;
  return { ready: false, detail, code, reasons: [...problems] };
}

export const STATUS = Type.Object(
  {
    status: textEnum(['healthy']),
    authenticated: Type.Boolean({ description: 'Whether a login has succeeded since the start.' }),
    modelCacheDir: Type.String({ description: 'The folder of the cache.' }),
    clock_offset_ms: nullable(
      Type.Integer({
        description:
          'The time of the servers upstream minus that of the device, in ms, to a second or two; null before their first answer.',
      }),
    ),
  },
  {
    description: 'The process serves requests.',
    examples: [{ status: 'healthy', authenticated: true, modelCacheDir: 'models', clock_offset_ms: -120 }],
  },
);

export function toStatus(
  { isAuthenticated, clockOffsetMs }: ApiClientStatus,
  modelCacheDir: string,
): Static<typeof STATUS> {
  return { status: 'healthy', authenticated: isAuthenticated, modelCacheDir, clock_offset_ms: clockOffsetMs };
}
