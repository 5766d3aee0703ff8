import type { FastifyInstance } from 'fastify';
import type { ApiClient } from '../../api-client/api-client.ts';
import { abortWhenClientLeaves } from '../bodies/client-abort.ts';

export interface LoginRoutesOptions {
  readonly apiClient: Pick<ApiClient, 'login'>;
}

interface LoginBody {
  readonly email: string;
  readonly password: string;
}

const LOGIN_BODY = {
  type: 'object',
  required: ['email', 'password'],
  properties: { email: { type: 'string' }, password: { type: 'string' } },
} as const;

/** POST /login: 200 `{"status":"ok"}`, 401 for every failure. */
export function registerLoginRoutes(app: FastifyInstance, { apiClient }: LoginRoutesOptions): void {
  app.post<{ Body: LoginBody }>(
    '/login',
    { schema: { body: LOGIN_BODY }, config: { failureStatus: 401 } },
    async (request, reply) => {
      const { email, password } = request.body;
      await apiClient.login(email, password, abortWhenClientLeaves(reply).signal);
      return { status: 'ok' };
    },
  );
}
