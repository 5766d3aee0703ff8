import type { Static } from 'typebox';
import type { ApiClientStatus } from '../../api-client/api-client.ts';
import { ERROR_CODE, nullable, textEnum, Type } from '../../json-schemas.ts';
import type { DeviceReport } from '../../device-status.ts';
import type { Problem } from '../../readiness.ts';
import type { UnlockStatus } from '../../unlock/unlock-service.ts';
import { VERSION } from '../../version.ts';
import { TIME } from './responses.ts';
import { UNLOCK_OUTCOME } from './unlock.ts';

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

const LOGIN = Type.Object(
  {
    user: nullable(Type.String({ description: 'Of the token; null when nobody is logged in.' })),
    role: nullable(Type.String()),
    since: nullable(TIME),
    error: nullable(Type.String({ description: 'Why the last login failed, unless one has succeeded since.' })),
    code: nullable(ERROR_CODE),
  },
  { description: 'Who is logged in, and what became of the last login.' },
);

const HARDWARE = Type.Object(
  {
    scheme: Type.Integer({ description: 'Of the hardware string: see the protocol, section 2.' }),
    digest: nullable(
      Type.String({ description: 'The first 12 hex digits of the SHA-256 of the string that the last login used.' }),
    ),
  },
  { description: 'Tells one hardware string from another: the string itself makes keys, and is never shown.' },
);

const CACHE = Type.Object({
  bytes: Type.Integer({ description: 'What its files take, as of the last 15 s.' }),
  copies: Type.Integer(),
  free_bytes: nullable(Type.Integer({ description: 'What its disk has left; null where the folder is unusable.' })),
  writable: Type.Boolean(),
});

const ENGINE = Type.Object({
  host: Type.String(),
  reachable: nullable(Type.Boolean({ description: 'At the last call; null before the first.' })),
  error: nullable(Type.String()),
});

export const STATUS = Type.Object(
  {
    status: textEnum(['healthy']),
    authenticated: Type.Boolean({ description: 'Whether a login has succeeded since the start.' }),
    modelCacheDir: Type.String({ description: 'The folder of the cache.' }),
    version: Type.String({ description: 'Of the Loader.' }),
    login: LOGIN,
    hardware: HARDWARE,
    cache: CACHE,
    unlock: UNLOCK_OUTCOME,
    engine: ENGINE,
    problems: Type.Array(PROBLEM, { description: 'Those of GET /ready.' }),
    clock_offset_ms: nullable(
      Type.Integer({
        description:
          'The time of the servers upstream minus that of the device, in ms, to a second or two; null before their first answer.',
      }),
    ),
  },
  {
    description: 'How the device is. The first three fields are those of the original.',
    examples: [
      {
        status: 'healthy',
        authenticated: true,
        modelCacheDir: 'models',
        version: '1.0.0',
        login: {
          user: 'operator@example.com',
          role: 'Operator',
          since: '2026-01-02T03:04:05.678Z',
          error: null,
          code: null,
        },
        hardware: { scheme: 1, digest: '3b1f0c9a2d7e' },
        cache: { bytes: 314572800, copies: 3, free_bytes: 52428800000, writable: true },
        unlock: { state: 'ready', error: null, code: null },
        engine: { host: '/var/run/docker.sock', reachable: true, error: null },
        problems: [],
        clock_offset_ms: -120,
      },
    ],
  },
);

export type StatusView = Static<typeof STATUS>;

/** Of the hardware string: docs/protocol.md section 2. */
const HARDWARE_SCHEME = 1;

export function toStatus(
  { login, hardwareDigest, cache, engine, problems }: DeviceReport,
  {
    isAuthenticated,
    clockOffsetMs,
    modelCacheDir,
    unlock,
  }: ApiClientStatus & { readonly modelCacheDir: string; readonly unlock: UnlockStatus },
): StatusView {
  const { user, since, failure } = login;
  const { bytes, copies, freeBytes } = cache;
  const { lastAnswer } = engine;
  return {
    status: 'healthy',
    authenticated: isAuthenticated,
    modelCacheDir,
    version: VERSION,
    login: {
      user: user?.email ?? null,
      role: user?.roleName ?? null,
      since: since?.toISOString() ?? null,
      error: failure?.message ?? null,
      code: failure?.code ?? null,
    },
    hardware: { scheme: HARDWARE_SCHEME, digest: hardwareDigest ?? null },
    cache: { bytes, copies, free_bytes: freeBytes ?? null, writable: freeBytes !== undefined && freeBytes > 0 },
    unlock: { state: unlock.state, error: unlock.error, code: unlock.code },
    engine: {
      host: engine.host,
      reachable: lastAnswer === undefined ? null : lastAnswer.failure === undefined,
      error: lastAnswer?.failure?.message ?? null,
    },
    problems: [...problems],
    clock_offset_ms: clockOffsetMs,
  };
}
