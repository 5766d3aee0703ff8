import { LoaderError, toError } from '../errors.ts';
import type { EngineConnection } from './engine-connection.ts';
import { LoadReply, type LayerProgress } from './load-reply.ts';

/** A tar that is streamed into the engine. */
export interface LoadBody {
  /** Bytes; undefined where the length is not known beforehand. */
  readonly length: number | undefined;
  readonly chunks: AsyncIterable<Buffer>;
}

/**
 * POST /images/load: streams a tar into the engine and reads the reply to its end.
 *
 * @throws as `DockerEngine.load` does
 */
export async function* sendImageLoad(
  connection: EngineConnection,
  { length, chunks }: LoadBody,
  signal: AbortSignal,
): AsyncGenerator<LayerProgress, void, undefined> {
  const { errors } = connection;
  const source = new WatchedBody(chunks);
  const reply = new LoadReply();
  const headers = {
    'content-type': 'application/x-tar',
    ...(length === undefined ? {} : { 'content-length': String(length) }),
  };
  let isAnswered = false;
  try {
    const path = '/images/load?quiet=0';
    const response = await connection.stream({ method: 'POST', path, headers, body: source }, signal);
    isAnswered = true;
    const body: AsyncIterable<Buffer> = await connection.bodyOf(response);
    for await (const bytes of body) yield* reply.take(bytes);
    yield* reply.end();
  } catch (error) {
    signal.throwIfAborted();
    // The body's error is the cause: a body that fails breaks the connection, not the other way round.
    if (source.error !== undefined) throw source.error;
    if (reply.error !== undefined) throw errors.refused(reply.error);
    if (error instanceof LoaderError) throw error;
    throw isAnswered ? errors.brokenReply(error) : errors.failed(error);
  }
  if (reply.error !== undefined) throw errors.refused(reply.error);
}

/** Keeps the error of a body that fails, since undici throws an error of its own instead. */
class WatchedBody implements AsyncIterable<Buffer> {
  error: Error | undefined;
  readonly #chunks: AsyncIterable<Buffer>;

  constructor(chunks: AsyncIterable<Buffer>) {
    this.#chunks = chunks;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, undefined> {
    try {
      yield* this.#chunks;
    } catch (error) {
      this.error = toError(error);
      throw error;
    }
  }
}
