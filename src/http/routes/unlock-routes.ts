import type { ApiClient } from '../../api-client/api-client.ts';
import type { UnlockStatus } from '../../unlock/unlock-service.ts';
import { abortWhenClientLeaves } from '../bodies/client-abort.ts';
import { sendEvents, type ServerEvent } from '../bodies/send-events.ts';
import { failures, INVALID_INPUT, ref, streamResponse, type HttpApp } from '../schemas/responses.ts';
import { LOGIN } from '../schemas/login.ts';
import { toUnlockEvent, toUnlockState, toUnlockStatus, UNLOCK_STATE, UNLOCK_STATUS } from '../schemas/unlock.ts';

export interface UnlockRoutesOptions {
  readonly apiClient: Pick<ApiClient, 'cancelUnlock' | 'unlock' | 'unlockStatus' | 'watchUnlock'>;
  readonly clientStallTimeoutMs: number;
}

/** POST and DELETE /unlock, GET /unlock/status, GET /unlock/events: the original's words for the state of the unlock. */
export function registerUnlockRoutes(app: HttpApp, { apiClient, clientStallTimeoutMs }: UnlockRoutesOptions): void {
  app.post(
    '/unlock',
    {
      schema: {
        operationId: 'unlock',
        summary: 'Start the unlock of the image archive',
        tags: ['unlock'],
        body: LOGIN,
        response: {
          ...failures(404, 413),
          ...INVALID_INPUT,
          200: { description: 'The state now.', ...UNLOCK_STATE },
        },
      },
    },
    async ({ body }) => toUnlockState(await apiClient.unlock(body.email, body.password)),
  );

  app.delete(
    '/unlock',
    {
      schema: {
        operationId: 'cancelUnlock',
        summary: 'Cancel the unlock',
        tags: ['unlock'],
        response: {
          ...failures(),
          200: { description: 'The state when its side effects have stopped.', ...UNLOCK_STATE },
        },
      },
    },
    async () => toUnlockState(await apiClient.cancelUnlock()),
  );

  app.get(
    '/unlock/status',
    {
      schema: {
        operationId: 'getUnlockStatus',
        summary: 'How far the unlock is',
        tags: ['unlock'],
        response: { ...failures(), 200: ref(UNLOCK_STATUS, 'The state of the unlock.') },
      },
    },
    () => toUnlockStatus(apiClient.unlockStatus),
  );

  app.get(
    '/unlock/events',
    {
      schema: {
        operationId: 'watchUnlock',
        summary: 'Follow the unlock',
        tags: ['unlock'],
        response: {
          ...failures(),
          200: streamResponse('text/event-stream', 'An event `status` now and at each change, until the unlock ends.'),
        },
      },
      exposeHeadRoute: false,
    },
    async (_request, reply) => {
      const abort = abortWhenClientLeaves(reply);
      const events = toEvents(apiClient.watchUnlock(abort.signal));
      await sendEvents(reply, events, { stallTimeoutMs: clientStallTimeoutMs, abort });
    },
  );
}

async function* toEvents(statuses: AsyncIterable<UnlockStatus>): AsyncGenerator<ServerEvent, void, undefined> {
  for await (const status of statuses) yield toUnlockEvent(status);
}
