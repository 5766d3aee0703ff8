import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { LoaderError } from '../../errors.ts';

export interface ReaderOptions {
  /** How long the client may read nothing, in ms. */
  readonly stallTimeoutMs: number;
  /** Aborts when the client has left. waitForReader aborts it with `client_stalled` when the client reads nothing. */
  readonly abort: AbortController;
}

/**
 * Waits for `event` of a response, as long as the client reads. The client counts as stalled when it took none of the
 * queued bytes for one to two times `stallTimeoutMs`.
 *
 * It goes by the timeout of Node's sockets, which alone sees the bytes of a large chunk leave one by one.
 */
export async function waitForReader(
  response: ServerResponse,
  event: 'drain' | 'finish',
  { stallTimeoutMs, abort }: ReaderOptions,
): Promise<void> {
  const { socket } = response;
  const onTimeout = () =>
    abort.abort(new LoaderError('client_stalled', `The client read nothing for ${stallTimeoutMs} ms.`));
  response.on('timeout', onTimeout);
  socket?.setTimeout(stallTimeoutMs);
  try {
    await once(response, event, { signal: abort.signal });
  } catch (error) {
    abort.signal.throwIfAborted(); // The reason, not the AbortError that wraps it.
    throw error;
  } finally {
    response.off('timeout', onTimeout);
    // After the end of a response, Node has set the timeout of a connection that is kept alive.
    if (!response.writableFinished) socket?.setTimeout(0);
  }
}
