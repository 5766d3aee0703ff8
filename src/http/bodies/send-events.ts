import { once } from 'node:events';
import type { FastifyReply } from 'fastify';
import { StallTimer } from '../../async/stall-timer.ts';
import { LoaderError } from '../../errors.ts';

export interface SendEventsOptions {
  /** How long the client may read nothing, in ms. */
  readonly stallTimeoutMs: number;
  /** Aborts when the client has left. sendEvents aborts it when the client reads nothing, so that the source ends. */
  readonly abort: AbortController;
}

/** Keeps proxies from closing a connection on which nothing happens, in ms. */
const HEARTBEAT_MS = 15_000;

export interface ServerEvent {
  readonly event: string;
  /** A client that connects again sends it as its Last-Event-ID. */
  readonly id?: string;
  /** Sent as JSON. */
  readonly data: unknown;
}

/**
 * Sends server-sent events (WHATWG HTML, section 9.2), and ends the response after the last one. It asks for the next
 * event when the client has read the one before.
 */
export async function sendEvents(
  reply: FastifyReply,
  events: AsyncIterable<ServerEvent>,
  { stallTimeoutMs, abort }: SendEventsOptions,
): Promise<void> {
  reply.hijack();
  const response = reply.raw;
  response.writeHead(200, {
    'content-type': 'text/event-stream',
    // A connection that is kept alive would hold up the end of the process.
    connection: 'close',
    'cache-control': 'no-store',
    'x-accel-buffering': 'no',
  });
  const heartbeat = setInterval(() => {
    if (!response.writableNeedDrain) response.write(': still here\n\n');
  }, HEARTBEAT_MS);
  try {
    for await (const { event, id, data } of events) {
      const idLine = id === undefined ? '' : `id: ${id}\n`;
      if (response.write(`event: ${event}\n${idLine}data: ${JSON.stringify(data)}\n\n`)) continue;
      using _timer = new StallTimer(stallTimeoutMs, () =>
        abort.abort(new LoaderError('client_stalled', `The client read nothing for ${stallTimeoutMs} ms.`)),
      );
      await once(response, 'drain', { signal: abort.signal });
    }
    response.end();
  } catch (error) {
    response.destroy();
    if (!abort.signal.aborted) throw error;
  } finally {
    clearInterval(heartbeat);
  }
}
