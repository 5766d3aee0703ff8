import type { FastifyReply } from 'fastify';
import { asLoaderError, LoaderError } from '../../errors.ts';
import { QueuedBytes } from '../../async/queued-bytes.ts';
import { releaseChunk } from '../../files/release-chunk.ts';
import { noteFailure } from '../request-log.ts';
import { waitForReader, type ReaderOptions } from './wait-for-reader.ts';

export interface Body {
  /** In bytes: the sum of the lengths of `chunks`. */
  readonly length: number;
  /** sendBody releases the memory of each chunk when the socket has taken it. */
  readonly chunks: AsyncIterable<Buffer>;
}

export interface SendOptions extends ReaderOptions {
  /** 200 unless given. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Bytes that may wait for the socket while the next chunk is made. A reader that stalls holds as much. */
const MAX_QUEUED_LENGTH = 256 * 1024;

/**
 * Sends a binary body with its exact Content-Length.
 *
 * The error handler responds to a failure before the first byte, which is thrown. A later failure destroys the socket, so
 * that a client never sees the clean end of a body that is short or wrong, and is told in the request's line of the log. It
 * aborts `options.abort` too, so that the sources of the body end.
 */
export async function sendBody(reply: FastifyReply, body: Body, options: SendOptions): Promise<void> {
  const chunks = body.chunks[Symbol.asyncIterator]();
  let next = await chunks.next();
  reply.hijack();
  const response = reply.raw;
  using queued = new QueuedBytes();
  let sent = 0;
  try {
    const { status = 200, headers } = options;
    response.writeHead(status, {
      'content-type': 'application/octet-stream',
      ...headers,
      'content-length': body.length,
    });
    for (; next.done !== true; next = await chunks.next()) {
      options.abort.signal.throwIfAborted();
      sent += next.value.length;
      reply.request.facts.bytes = sent;
      if (sent > body.length) throw new LoaderError('envelope_invalid', 'The body is longer than was announced.');
      const chunk = next.value;
      const { length } = chunk;
      queued.add(length);
      response.write(chunk, () => {
        queued.remove(length);
        releaseChunk(chunk);
      });
      // Below the mark of the response, no `drain` comes.
      const most = queued.areOfMany ? response.writableHighWaterMark : MAX_QUEUED_LENGTH;
      if (response.writableLength > most) await waitForReader(response, 'drain', options);
    }
    if (sent < body.length) throw new LoaderError('envelope_invalid', 'The body is shorter than was announced.');
    response.end();
    await waitForReader(response, 'finish', options);
  } catch (error) {
    noteFailure(reply, { known: asLoaderError(error), thrown: error });
    options.abort.abort(error);
    response.destroy();
    await chunks.return?.();
  }
}
