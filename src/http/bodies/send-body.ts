import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { FastifyReply } from 'fastify';
import { LoaderError } from '../../errors.ts';
import { releaseChunk } from '../../files/release-chunk.ts';

export interface Body {
  /** Bytes; what `chunks` yields must come to exactly this. */
  readonly length: number;
  readonly chunks: AsyncIterable<Buffer>;
}

// The chunks are given away: their memory is released as soon as the socket has taken them.

export interface SendBodyOptions {
  /** How long the client may take nothing, in ms. */
  readonly stallTimeoutMs: number;
  /** Aborts when the client has left, and is aborted when the body fails, so that its sources let go. */
  readonly abort: AbortController;
}

/** Bytes that may wait for the socket while the next chunk is made. */
const MAX_QUEUED_LENGTH = 1024 * 1024;

/**
 * Sends a binary body with its exact Content-Length.
 *
 * A failure before the first byte is thrown, for the error handler to answer. After it, the socket is destroyed: a
 * client never sees the clean end of a body that is short or wrong.
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
  await withStallTimeout(options, (signal) => once(response, 'drain', { signal }));
}

async function end(response: ServerResponse, options: SendBodyOptions): Promise<void> {
  await withStallTimeout(options, async (signal) => {
    const finished = once(response, 'finish', { signal });
    response.end();
    await finished;
  });
}

async function withStallTimeout(
  { stallTimeoutMs, abort }: SendBodyOptions,
  wait: (signal: AbortSignal) => Promise<unknown>,
): Promise<void> {
  const timer = setTimeout(() => {
    abort.abort(new LoaderError('client_stalled', `The client read nothing for ${stallTimeoutMs} ms.`));
  }, stallTimeoutMs);
  try {
    await wait(abort.signal);
  } catch (error) {
    abort.signal.throwIfAborted(); // The reason, not the AbortError that wraps it.
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
