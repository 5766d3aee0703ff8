import type { ApiClient } from '../../api-client/api-client.ts';
import { abortWhenClientLeaves } from '../bodies/client-abort.ts';
import { failures, INVALID_INPUT, OK, type HttpApp } from '../schemas/responses.ts';
import { LOGIN } from '../schemas/login.ts';

export interface LoginRoutesOptions {
  readonly apiClient: Pick<ApiClient, 'login'>;
}

/** POST /login: 200 `{"status":"ok"}`, 401 for every failure. */
export function registerLoginRoutes(app: HttpApp, { apiClient }: LoginRoutesOptions): void {
  app.post(
    '/login',
    {
      schema: {
        operationId: 'login',
        summary: 'Log in at the Resource API',
        tags: ['resources'],
        body: LOGIN,
        response: { ...failures(413), ...INVALID_INPUT, 200: OK },
      },
      config: { failureStatus: 401 },
    },
    async (request, reply) => {
      const { email, password } = request.body;
      await apiClient.login(email, password, abortWhenClientLeaves(reply).signal);
      return { status: 'ok' as const };
    },
  );
}
