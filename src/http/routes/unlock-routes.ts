import type { FastifyInstance } from 'fastify';
import type { UnlockService } from '../../unlock/unlock-service.ts';
import { abortWhenClientLeaves } from '../bodies/client-abort.ts';
import { sendEvents, type ServerEvent } from '../bodies/send-events.ts';

export interface UnlockRoutesOptions {
  readonly unlocks: UnlockService;
  readonly clientStallTimeoutMs: number;
}

interface UnlockBody {
  readonly email: string;
  readonly password: string;
}

const UNLOCK_BODY = {
  type: 'object',
  required: ['email', 'password'],
  properties: { email: { type: 'string' }, password: { type: 'string' } },
} as const;

/** POST and DELETE /unlock, GET /unlock/status, GET /unlock/events: the original's words for the state of the unlock. */
export function registerUnlockRoutes(
  app: FastifyInstance,
  { unlocks, clientStallTimeoutMs }: UnlockRoutesOptions,
): void {
  app.post<{ Body: UnlockBody }>('/unlock', { schema: { body: UNLOCK_BODY } }, async ({ body }) => ({
    state: await unlocks.start(body.email, body.password),
  }));

  app.delete('/unlock', async () => ({ state: await unlocks.cancel() }));

  app.get('/unlock/status', () => unlocks.status);

  app.get('/unlock/events', { exposeHeadRoute: false }, async (_request, reply) => {
    const abort = abortWhenClientLeaves(reply);
    await sendEvents(reply, statusEvents(unlocks, abort.signal), { stallTimeoutMs: clientStallTimeoutMs, abort });
  });
}

async function* statusEvents(
  unlocks: UnlockService,
  signal: AbortSignal,
): AsyncGenerator<ServerEvent, void, undefined> {
  for await (const data of unlocks.watch(signal)) yield { event: 'status', data };
}
