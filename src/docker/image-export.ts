import type { Readable } from 'node:stream';
import { StallTimer } from '../async/stall-timer.ts';
import { watchForStalls } from '../async/stall-watchdog.ts';
import { LoaderError } from '../errors.ts';
import type { EngineConnection } from './engine-connection.ts';

export interface ExportOptions {
  /** How long the engine may take to send the first byte, in ms: before that, it writes the whole tar to its disk. */
  readonly prepareTimeoutMs: number;
  /** How long the engine may then send nothing, in ms. */
  readonly stallTimeoutMs: number;
  readonly signal: AbortSignal;
}

/** GET /images/get: yields the tar of images, each given by a tag or ID. @throws as `DockerEngine.exportImages` does */
export async function* streamImageExport(
  connection: EngineConnection,
  names: readonly string[],
  options: ExportOptions,
): AsyncGenerator<Buffer, void, undefined> {
  const { stallTimeoutMs: timeoutMs, signal } = options;
  const source = await startExport(connection, names, options);
  const stalled = () => connection.errors.silent(timeoutMs);
  try {
    yield* watchForStalls(source, { timeoutMs, stalled, signal });
  } catch (error) {
    signal.throwIfAborted();
    throw error instanceof LoaderError ? error : connection.errors.failed(error);
  }
}

async function startExport(
  connection: EngineConnection,
  names: readonly string[],
  { prepareTimeoutMs, signal }: ExportOptions,
): Promise<Readable> {
  const query = names.map((name) => `names=${encodeURIComponent(name)}`).join('&');
  const silence = new AbortController();
  using _timer = new StallTimer(prepareTimeoutMs, () => silence.abort(connection.errors.silent(prepareTimeoutMs)));
  try {
    const request = { method: 'GET', path: `/images/get?${query}` } as const;
    const response = await connection.stream(request, AbortSignal.any([signal, silence.signal]));
    return await connection.bodyOf(response);
  } catch (error) {
    signal.throwIfAborted();
    silence.signal.throwIfAborted();
    throw error instanceof LoaderError ? error : connection.errors.failed(error);
  }
}
