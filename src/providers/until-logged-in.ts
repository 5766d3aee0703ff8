import type { TaskContext } from '../tasks/provider.ts';
import type { Upstream } from '../upstream/upstream.ts';

/** What tells of the login. `session` is called for its failure only. */
export type LoginGate = Pick<Upstream, 'isAuthenticated' | 'authenticated'> & {
  session(signal: AbortSignal): Promise<unknown>;
};

/** Waits for the first login where no client waits for the task, and says so. @throws LoaderError `not_authenticated` */
export async function untilLoggedIn(upstream: LoginGate, context: TaskContext): Promise<void> {
  if (context.isUnattended && !upstream.isAuthenticated) {
    const waitingFor = 'Waiting for the first login: POST /login, or set LOGIN_EMAIL and LOGIN_PASSWORD_FILE';
    context.log('info', waitingFor);
    context.report({ bytesDone: 0, bytesTotal: null, waitingFor });
    await upstream.authenticated(context.signal);
  }
  await upstream.session(context.signal);
}
