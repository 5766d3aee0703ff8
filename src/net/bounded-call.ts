import type { Dispatcher, FormData } from 'undici';
import { parseJson } from '../json.ts';

export interface BoundedCallOptions {
  readonly dispatcher: Dispatcher;
  readonly method: 'DELETE' | 'GET' | 'POST';
  readonly url: URL | string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: FormData | string | undefined;
  /** For everything from the connection to the last byte of the answer, in ms. */
  readonly timeoutMs: number;
  /** Bytes of the answer's body. */
  readonly maxLength: number;
  readonly signal: AbortSignal;
}

export interface BoundedAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

/** The answer was not complete in time. */
export class DeadlineError extends Error {
  override readonly name = 'DeadlineError';
}

/** The answer is longer than any that is expected. */
export class AnswerTooLongError extends Error {
  override readonly name = 'AnswerTooLongError';
}

/**
 * Makes one HTTP call whose answer is small, with a deadline for all of it and a limit to the answer's length. It is
 * ours since undici's timeouts start anew with each chunk, so that a slow answer never ends, and its bodies have no
 * limit.
 *
 * @throws the reason of `signal`, DeadlineError, AnswerTooLongError; the system's or undici's error
 */
export async function boundedCall(options: BoundedCallOptions): Promise<BoundedAnswer> {
  const { dispatcher, method, url, headers = {}, body = null, timeoutMs, maxLength, signal } = options;
  const timeout = AbortSignal.timeout(timeoutMs);
  try {
    const { origin, pathname, search } = new URL(url);
    const response = await dispatcher.request({
      origin,
      path: pathname + search,
      method,
      headers: { ...headers },
      body,
      signal: AbortSignal.any([signal, timeout]),
    });
    return {
      status: response.statusCode,
      headers: response.headers,
      body: await readBounded(response.body as AsyncIterable<Buffer>, maxLength),
    };
  } catch (error) {
    signal.throwIfAborted();
    if (timeout.aborted) throw new DeadlineError(`no answer within ${timeoutMs} ms`, { cause: error });
    throw error;
  }
}

/** Returns all bytes of a body. @throws AnswerTooLongError beyond `maxLength` bytes */
export async function readBounded(body: AsyncIterable<Buffer>, maxLength: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of body) {
    length += chunk.length;
    if (length > maxLength) throw new AnswerTooLongError(`more than ${maxLength} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** The JSON value of an answer; undefined when its body is not JSON. */
export function jsonOf({ body }: BoundedAnswer): unknown {
  return parseJson(body.toString('utf8'));
}
