import type { FastifyInstance } from 'fastify';
import type { UnlockStatus } from '../../unlock/unlock-service.ts';
import type { ApiClient } from '../../api-client/api-client.ts';
import { abortWhenClientLeaves } from '../bodies/client-abort.ts';
import { sendEvents, type ServerEvent } from '../bodies/send-events.ts';

export interface UnlockRoutesOptions {
  readonly apiClient: Pick<ApiClient, 'cancelUnlock' | 'unlock' | 'unlockStatus' | 'watchUnlock'>;
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
  { apiClient, clientStallTimeoutMs }: UnlockRoutesOptions,
): void {
  app.post<{ Body: UnlockBody }>('/unlock', { schema: { body: UNLOCK_BODY } }, async ({ body }) => ({
    state: await apiClient.unlock(body.email, body.password),
  }));

  app.delete('/unlock', async () => ({ state: await apiClient.cancelUnlock() }));

  app.get('/unlock/status', () => apiClient.unlockStatus);

  app.get('/unlock/events', { exposeHeadRoute: false }, async (_request, reply) => {
    const abort = abortWhenClientLeaves(reply);
    await sendEvents(reply, statusEvents(apiClient.watchUnlock(abort.signal)), {
      stallTimeoutMs: clientStallTimeoutMs,
      abort,
    });
  });
}

async function* statusEvents(statuses: AsyncIterable<UnlockStatus>): AsyncGenerator<ServerEvent, void, undefined> {
  for await (const data of statuses) yield { event: 'status', data };
}
