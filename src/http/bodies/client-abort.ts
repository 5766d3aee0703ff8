import type { FastifyReply } from 'fastify';
import { LoaderError } from '../../errors.ts';

/**
 * A controller that aborts when the client closes its connection before the response is complete.
 *
 * It goes by the response's `close`. The request's own comes at the end of the body too, while the client still waits.
 */
export function abortWhenClientLeaves(reply: FastifyReply): AbortController {
  const abort = new AbortController();
  const response = reply.raw;
  const onClose = () => {
    if (!response.writableFinished) abort.abort(new LoaderError('client_closed', 'The client closed the connection.'));
  };
  if (response.closed) onClose();
  else response.once('close', onClose);
  return abort;
}
