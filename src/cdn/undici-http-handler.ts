import { Readable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import type { Dispatcher } from 'undici';
import { NEVER } from '../async/abort.ts';
import { StallTimer } from '../async/stall-timer.ts';
import { systemErrorCode } from '../errors.ts';
import { AnswerTooLongError, readBounded } from '../net/bounded-call.ts';
import type { ServerClock } from '../net/server-clock.ts';

export interface UndiciHttpHandlerOptions {
  /** Whose connections are used. They outlive this handler. */
  readonly dispatcher: Dispatcher;
  /** Between two slices of a body that is sent, for the headers and between two chunks of an answer, in ms. */
  readonly timeoutMs: number;
  /** Learns the time of the server. */
  readonly clock: Pick<ServerClock, 'note'>;
}

/** A signed request of the AWS SDK. Its bodies are XML, or a part of an upload. */
interface SignedRequest {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number;
  readonly method: string;
  readonly path: string;
  readonly query?: Readonly<Record<string, string | readonly string[] | null>>;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

interface SdkResponse {
  readonly statusCode: number;
  readonly headers: Record<string, string>;
  readonly body: Readable;
}

/** Bytes of the longest XML of an answer. A page of a list is the longest one that the Loader asks for. */
const MAX_XML_LENGTH = 1024 * 1024;
/** Bytes of the longest body of an error that is read; the status is enough to go on without a longer one. */
const MAX_ERROR_LENGTH = 64 * 1024;
/** Bytes of a body that are handed to the socket at a time. */
const SLICE_LENGTH = 256 * 1024;

/** An error with a body that is not that of an S3 server (Amazon S3 API Reference, "REST error responses"). */
export class ForeignAnswerError extends Error {
  override readonly name = 'ForeignAnswerError';
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;

  constructor(status: number, headers: Readonly<Record<string, unknown>>) {
    super(`status ${status} with a body that is no S3 error`);
    this.status = status;
    this.headers = headers;
  }

  /** Without parameters, for a message. */
  get contentType(): string {
    return /^[\w.+-]+\/[\w.+-]+/.exec(String(this.headers['content-type']))?.[0] ?? 'no content type';
  }
}

/**
 * Carries the SDK's requests over undici in place of node:http.
 *
 * node:http copies every chunk of a body and leaves the socket's own buffer to the garbage collector, which took a
 * third of the CPU of a cold load. undici hands the socket's buffer on, and the reader can release it.
 *
 * Only the bytes of objects are streamed. The SDK collects all other bodies without a limit, so they are read here, and
 * only so far as the bounds above allow.
 */
export class UndiciHttpHandler {
  readonly metadata = { handlerProtocol: 'http/1.1' };
  readonly #options: UndiciHttpHandlerOptions;

  constructor(options: UndiciHttpHandlerOptions) {
    this.#options = options;
  }

  async handle(
    request: SignedRequest,
    options: { readonly abortSignal?: unknown } = {},
  ): Promise<{ response: SdkResponse }> {
    try {
      const answer = await this.#send(
        request,
        options.abortSignal instanceof AbortSignal ? options.abortSignal : NEVER,
      );
      this.#options.clock.note(answer.headers);
      const headers = Object.entries(answer.headers).map(([name, value]) => [name, String(value)]);
      return {
        response: {
          statusCode: answer.statusCode,
          headers: Object.fromEntries(headers) as Record<string, string>,
          body: isObject(request, answer)
            ? answer.body
            : Readable.from([await this.#readWhole(answer, request.method)]),
        },
      };
    } catch (error) {
      throw toSdkError(error);
    }
  }

  /** Without a body, undici watches for the answer. Its clock would also run while a body is sent, however fast. */
  async #send(request: SignedRequest, signal: AbortSignal): Promise<Dispatcher.ResponseData> {
    const port = request.port === undefined ? '' : `:${request.port}`;
    const target = {
      origin: `${request.protocol}//${request.hostname}${port}`,
      path: request.path + queryString(request.query),
      method: request.method,
      headers: { ...request.headers },
    };
    const bytes = bytesOf(request.body);
    const stall = new AbortController();
    const { dispatcher, timeoutMs } = this.#options;
    using body = bytes && new WatchedBody(bytes, timeoutMs, () => stall.abort(noAnswer()));
    const answer = await dispatcher.request({
      ...target,
      // undici takes any iterable, as its documentation says and its types do not.
      body: (body?.slices() ?? null) as (Readable & Iterable<Buffer>) | null,
      signal: AbortSignal.any([signal, stall.signal]),
      headersTimeout: body === undefined ? timeoutMs : 0,
      // For bodies that are read here. This clock stands still while a reader is busy.
      bodyTimeout: timeoutMs,
      // undici would close the connection after each HEAD, for servers that wrongly send a body.
      reset: false,
    });
    // A body that is destroyed before its end, because its headers were enough, emits an error that has no reader.
    answer.body.on('error', () => undefined);
    return answer;
  }

  /** As `#read`. The connection is free for the next request then. */
  async #readWhole(answer: Dispatcher.ResponseData, method: string): Promise<Buffer> {
    const bytes = await this.#read(answer, method);
    // undici uses a connection again in the turn after the one in which an answer has ended. A request that came sooner
    // would make another connection.
    await setImmediate();
    return bytes;
  }

  /** The body of an answer that is no object's. @throws AnswerTooLongError; undici's error */
  async #read({ statusCode, headers, body }: Dispatcher.ResponseData, method: string): Promise<Buffer> {
    const chunks = body as AsyncIterable<Buffer>;
    if (statusCode < 300) {
      const xml = await readBounded(chunks, MAX_XML_LENGTH);
      // A network that wants a login answers everything with its page.
      if (String(headers['content-type']).startsWith('text/html')) throw new ForeignAnswerError(statusCode, headers);
      return xml;
    }
    const late = setTimeout(() => body.destroy(noAnswer()), this.#options.timeoutMs);
    try {
      const bytes = await readBounded(chunks, MAX_ERROR_LENGTH);
      // S3 says in the body why it redirects, except to HEAD.
      const hasBody = bytes.length > 0 || (statusCode < 400 && method !== 'HEAD');
      if (hasBody && !bytes.includes('<Error')) throw new ForeignAnswerError(statusCode, headers);
      return bytes;
    } catch (error) {
      if (!(error instanceof AnswerTooLongError)) throw error;
      return Buffer.alloc(0); // The SDK makes the error of the status alone.
    } finally {
      clearTimeout(late);
    }
  }

  updateHttpClientConfig(): void {
    // The SDK would change options by this; all are set at construction.
  }

  httpHandlerConfigs(): Record<string, never> {
    return {};
  }

  destroy(): void {
    // The connections are the dispatcher's.
  }
}

/** The bytes of a request, as undici takes them. The connection is watched from the first slice to the disposal. */
class WatchedBody implements Disposable {
  readonly #bytes: Buffer;
  readonly #timer: StallTimer;

  constructor(bytes: Buffer, timeoutMs: number, onStall: () => void) {
    this.#bytes = bytes;
    this.#timer = new StallTimer(timeoutMs, onStall);
    this.#timer.pause(); // It may have to wait for a free connection.
  }

  *slices(): Generator<Buffer, void, undefined> {
    const { length } = this.#bytes;
    this.#timer.resume();
    for (let start = 0; start < length; start += SLICE_LENGTH) {
      const slice = this.#bytes.subarray(start, start + SLICE_LENGTH);
      this.#timer.pat();
      // undici asks for the next slice when the socket has taken this one. The last one may still wait there when the
      // answer comes, and the caller may release the bytes then.
      yield start + slice.length < length ? slice : Buffer.from(slice);
    }
    this.#timer.pat();
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
  }
}

/** The SDK names its operation in the query; the bytes of large objects are asked for in ranges. */
function isObject({ headers, query }: SignedRequest, { statusCode }: Dispatcher.ResponseData): boolean {
  return statusCode < 300 && (headers['range'] !== undefined || query?.['x-id'] === 'GetObject');
}

/** Undefined for a request without a body. The SDK's type is wider than what the commands of the Loader send. */
function bytesOf(body: unknown): Buffer | undefined {
  if (typeof body === 'string') return Buffer.from(body);
  return body instanceof Uint8Array ? Buffer.from(body.buffer, body.byteOffset, body.byteLength) : undefined;
}

/** The query as it was signed, in the order of its names as the SDK sends it. RFC 3986 escapes five characters that encodeURIComponent does not. */
function queryString(query: SignedRequest['query']): string {
  const sorted = Object.entries(query ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  const pairs = sorted.flatMap(([name, value]) =>
    (typeof value === 'string' ? [value] : (value ?? [''])).map((item) => `${escape(name)}=${escape(item)}`),
  );
  return pairs.length === 0 ? '' : `?${pairs.join('&')}`;
}

function escape(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** An error with the name and code by which the SDK knows what it may send again. */
function toSdkError(error: unknown): unknown {
  const code = systemErrorCode(error);
  if (code === 'UND_ERR_SOCKET') {
    return Object.assign(new Error('socket hang up', { cause: error }), { name: 'TimeoutError', code: 'ECONNRESET' });
  }
  if (code === 'UND_ERR_HEADERS_TIMEOUT') return noAnswer(error);
  return error;
}

function noAnswer(cause?: unknown): Error {
  return Object.assign(new Error('no answer in time', { cause }), { name: 'TimeoutError', code: 'ETIMEDOUT' });
}
