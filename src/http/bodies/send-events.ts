import type { FastifyReply } from 'fastify';
import { waitForReader, type ReaderOptions } from './wait-for-reader.ts';

/** Keeps proxies from closing a connection on which nothing happens, in ms. */
const HEARTBEAT_MS = 15_000;
/**
 * After the client has closed its sending half, in ms. It looks just like one that has left: only writes that fail tell
 * them apart.
 */
const HALF_CLOSED_HEARTBEAT_MS = 200;

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
  options: ReaderOptions,
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
  const beat = () => {
    if (!response.writableNeedDrain) response.write(': still here\n\n');
  };
  let heartbeat = setInterval(beat, HEARTBEAT_MS);
  response.socket?.once('end', () => {
    clearInterval(heartbeat);
    heartbeat = setInterval(beat, HALF_CLOSED_HEARTBEAT_MS);
  });
  try {
    for await (const { event, id, data } of events) {
      const idLine = id === undefined ? '' : `id: ${id}\n`;
      if (response.write(`event: ${event}\n${idLine}data: ${JSON.stringify(data)}\n\n`)) continue;
      await waitForReader(response, 'drain', options);
    }
    response.end();
  } catch (error) {
    response.destroy();
    if (!options.abort.signal.aborted) throw error;
  } finally {
    clearInterval(heartbeat);
  }
}
