import { once } from 'node:events';
import type { FastifyReply } from 'fastify';
import { LoaderError } from '../../errors.ts';

export interface SendEventsOptions {
  /** How long the client may take nothing, in ms. */
  readonly stallTimeoutMs: number;
  /** Aborts when the client has left; is aborted when it takes nothing, so that the source lets go. */
  readonly abort: AbortController;
}

/** Keeps proxies from closing a connection on which nothing happens, in ms. */
const HEARTBEAT_MS = 15_000;

export interface ServerEvent {
  readonly event: string;
  /** What a client that comes back names as its Last-Event-ID. */
  readonly id?: string;
  /** Sent as JSON. */
  readonly data: unknown;
}

/**
 * Sends server-sent events (WHATWG HTML, section 9.2), and ends the answer after the last one. It asks for the next one
 * when the client has taken the one before.
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
    // Kept alive, it would hold up the end of the process.
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
      const timer = setTimeout(() => {
        abort.abort(new LoaderError('client_stalled', `The client read nothing for ${stallTimeoutMs} ms.`));
      }, stallTimeoutMs);
      try {
        await once(response, 'drain', { signal: abort.signal });
      } finally {
        clearTimeout(timer);
      }
    }
    response.end();
  } catch (error) {
    response.destroy();
    if (!abort.signal.aborted) throw error;
  } finally {
    clearInterval(heartbeat);
  }
}
