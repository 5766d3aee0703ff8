import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { FastifyReply } from 'fastify';
import { StallTimer } from '../../async/stall-timer.ts';
import { LoaderError } from '../../errors.ts';
import { releaseChunk } from '../../files/release-chunk.ts';

export interface Body {
  /** In bytes: the sum of the lengths of `chunks`. */
  readonly length: number;
  /** sendBody releases the memory of each chunk when the socket has taken it. */
  readonly chunks: AsyncIterable<Buffer>;
}

export interface SendBodyOptions {
  /** How long the client may read nothing, in ms. */
  readonly stallTimeoutMs: number;
  /** Aborts when the client has left. sendBody aborts it when the body fails, so that the sources of the body end. */
  readonly abort: AbortController;
}

/** Bytes that may wait for the socket while the next chunk is made. */
const MAX_QUEUED_LENGTH = 1024 * 1024;

/**
 * Sends a binary body with its exact Content-Length.
 *
 * The error handler responds to a failure before the first byte. A later failure destroys the socket, so that a client
 * never sees the clean end of a body that is short or wrong.
 */
export async function sendBody(reply: FastifyReply, body: Body, options: SendBodyOptions): Promise<void> {
  const chunks = body.chunks[Symbol.asyncIterator]();
  let next = await chunks.next();
  reply.hijack();
  const response = reply.raw;
  try {
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': body.length });
    let sent = 0;
    for (; next.done !== true; next = await chunks.next()) {
      options.abort.signal.throwIfAborted();
      sent += next.value.length;
      if (sent > body.length) throw new LoaderError('envelope_invalid', 'The body is longer than was announced.');
      const chunk = next.value;
      response.write(chunk, () => releaseChunk(chunk));
      if (response.writableLength > MAX_QUEUED_LENGTH) await drain(response, options);
    }
    if (sent < body.length) throw new LoaderError('envelope_invalid', 'The body is shorter than was announced.');
    await end(response, options);
  } catch (error) {
    options.abort.abort(error);
    response.destroy();
    await chunks.return?.();
    throw error;
  }
}

async function drain(response: ServerResponse, options: SendBodyOptions): Promise<void> {
  await untilStalled(once(response, 'drain', { signal: options.abort.signal }), options);
}

async function end(response: ServerResponse, options: SendBodyOptions): Promise<void> {
  const finished = once(response, 'finish', { signal: options.abort.signal });
  response.end();
  await untilStalled(finished, options);
}

/** Waits for `moved`, which the signal of `abort` ends. */
async function untilStalled(moved: Promise<unknown>, { stallTimeoutMs, abort }: SendBodyOptions): Promise<void> {
  using _timer = new StallTimer(stallTimeoutMs, () =>
    abort.abort(new LoaderError('client_stalled', `The client read nothing for ${stallTimeoutMs} ms.`)),
  );
  try {
    await moved;
  } catch (error) {
    abort.signal.throwIfAborted(); // The reason, not the AbortError that wraps it.
    throw error;
  }
}
