import type { Readable } from 'node:stream';
import { Agent } from 'undici';
import { systemErrorCode } from '../errors.ts';

export interface UndiciHttpHandlerOptions {
  /** For a connection, for the headers of an answer, and between two chunks of its body, in ms. */
  readonly timeoutMs: number;
  /** Connections to one host; further requests wait for a free one. */
  readonly connections: number;
}

/** A signed request of the AWS SDK. Downloads have no body. */
interface SignedRequest {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number;
  readonly method: string;
  readonly path: string;
  readonly query?: Readonly<Record<string, string | readonly string[] | null>>;
  readonly headers: Readonly<Record<string, string>>;
}

interface SdkResponse {
  readonly statusCode: number;
  readonly headers: Record<string, string>;
  readonly body: Readable;
}

/**
 * Carries the SDK's downloads over undici in place of node:http.
 *
 * node:http copies every chunk of a body and leaves the socket's own buffer to the garbage collector, which took a
 * third of the CPU of a cold load. undici hands the socket's buffer on, and the reader can release it.
 */
export class UndiciHttpHandler {
  readonly metadata = { handlerProtocol: 'http/1.1' };
  readonly #agent: Agent;

  constructor({ timeoutMs, connections }: UndiciHttpHandlerOptions) {
    this.#agent = new Agent({
      connections,
      connect: { timeout: timeoutMs },
      headersTimeout: timeoutMs,
      // For the bodies of errors, which the SDK reads without a watchdog. This clock stands still while a reader is busy.
      bodyTimeout: timeoutMs,
      pipelining: 1,
    });
  }

  async handle(
    request: SignedRequest,
    options: { readonly abortSignal?: unknown } = {},
  ): Promise<{ response: SdkResponse }> {
    const port = request.port === undefined ? '' : `:${request.port}`;
    try {
      const answer = await this.#agent.request({
        origin: `${request.protocol}//${request.hostname}${port}`,
        path: request.path + queryString(request.query),
        method: request.method,
        headers: { ...request.headers },
        signal: options.abortSignal instanceof AbortSignal ? options.abortSignal : null,
      });
      // A body that is destroyed before its end, because its headers were enough, emits an error that has no reader.
      answer.body.on('error', () => undefined);
      const headers = Object.entries(answer.headers).map(([name, value]) => [name, String(value)]);
      return {
        response: {
          statusCode: answer.statusCode,
          headers: Object.fromEntries(headers) as Record<string, string>,
          body: answer.body,
        },
      };
    } catch (error) {
      throw toSdkError(error);
    }
  }

  updateHttpClientConfig(): void {
    // The SDK would change options by this; all are set at construction.
  }

  httpHandlerConfigs(): Record<string, never> {
    return {};
  }

  destroy(): void {
    void this.#agent.destroy();
  }
}

/** The query as it was signed. RFC 3986 escapes five characters that encodeURIComponent does not. */
function queryString(query: SignedRequest['query']): string {
  const pairs = Object.entries(query ?? {}).flatMap(([name, value]) =>
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
  if (code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_CONNECT_TIMEOUT') {
    return Object.assign(new Error('no answer in time', { cause: error }), { name: 'TimeoutError', code: 'ETIMEDOUT' });
  }
  return error;
}
