import { LoaderError } from '../errors.ts';
import type { EngineConnection } from './engine-connection.ts';

const PATH = `/events?filters=${encodeURIComponent(JSON.stringify({ type: ['image'] }))}`;

/** `listening`: events come from now on. `changed`: something happened to an image. */
export type ImageEvent = 'listening' | 'changed';

/**
 * GET /events: tells that something happened to images, but not what, since the reader asks the engine anyway. The
 * bytes are not parsed, and several events may come as one.
 *
 * @throws as `DockerEngine.imageEvents` does
 */
export async function* streamImageEvents(
  connection: EngineConnection,
  signal: AbortSignal,
): AsyncGenerator<ImageEvent, void, undefined> {
  try {
    const response = await connection.stream({ method: 'GET', path: PATH }, signal);
    const body: AsyncIterable<Buffer> = await connection.bodyOf(response);
    yield 'listening';
    for await (const bytes of body) if (bytes.length > 0) yield 'changed';
  } catch (error) {
    signal.throwIfAborted();
    throw error instanceof LoaderError ? error : connection.errors.failed(error);
  }
}
