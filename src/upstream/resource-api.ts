import { FormData, type Dispatcher } from 'undici';
import { LoaderError, systemErrorCode } from '../errors.ts';
import { asRecord } from '../json.ts';
import { AnswerTooLongError, boundedCall, DeadlineError, jsonOf, type BoundedAnswer } from '../net/bounded-call.ts';
import { retry } from '../async/retry.ts';

export interface ResourceApiOptions {
  readonly baseUrl: string;
  readonly dispatcher: Dispatcher;
  /** For one attempt of one call, from the connection to the last byte of the answer, in ms. */
  readonly timeoutMs: number;
}

export interface ResourceQuery {
  /** Empty for `cdn.yaml`. */
  readonly folder: string;
  readonly fileName: string;
  readonly password: string;
  readonly hardware: string;
}

interface Call {
  readonly method: 'GET' | 'POST';
  /** Path under the base URL, percent-encoded. */
  readonly path: string;
  readonly token?: string;
  readonly json?: unknown;
  readonly form?: FormData;
}

/** The largest answer that is taken: all are small, and none may exhaust the memory. */
const MAX_ANSWER_LENGTH = 4 * 1024 * 1024;
const READ_ATTEMPTS = 3;
const RETRY_BASE_DELAY_MS = 200;

/** The API said that the token is no longer good. Never leaves this room: Session logs in again. */
export class TokenRejectedError extends Error {
  override readonly name = 'TokenRejectedError';
}

/**
 * The calls of the Resource API (docs/protocol.md section 5), one method each. It knows no session: tokens are
 * arguments.
 *
 * Common failures of all calls: LoaderError `api_unreachable`, `api_timeout`, `api_error`, `api_invalid_response`.
 * Messages and causes never quote what the API answered: that may be a token.
 */
export class ResourceApi {
  readonly #options: ResourceApiOptions;

  constructor(options: ResourceApiOptions) {
    this.#options = options;
  }

  /** Answers the token. @throws LoaderError `wrong_credentials` */
  async login(email: string, password: string, signal: AbortSignal): Promise<string> {
    const answer = await this.#call({ method: 'POST', path: 'login', json: { email, password } }, signal);
    if (answer.status === 401 || answer.status === 409) {
      throw new LoaderError('wrong_credentials', 'The Resource API refused the email and password.');
    }
    assertSuccess(answer);
    return parseToken(answer);
  }

  /** Answers the file's envelope under the API key. @throws TokenRejectedError, LoaderError `resource_not_in_api` */
  async getResource(query: ResourceQuery, token: string, signal: AbortSignal): Promise<Buffer> {
    const call: Call = {
      method: 'POST',
      path: `resources/get/${encodeFolder(query.folder)}`,
      token,
      json: { fileName: query.fileName, password: query.password, hardware: query.hardware },
    };
    // A read changes nothing upstream, so it may be repeated.
    const answer = await retry(
      async () => assertSuccess(assertToken(await this.#call(call, signal))),
      READ_RETRY,
      signal,
    );
    assertNoWebPage(answer);
    return answer.body;
  }

  /** Answers the key fragment's bytes as they are. @throws TokenRejectedError, LoaderError `key_fragment_invalid` */
  async getKeyFragment(token: string, signal: AbortSignal): Promise<Buffer> {
    const call: Call = { method: 'GET', path: 'binary-split/key-fragment', token };
    const fetchOnce = async () => {
      const answer = assertToken(await this.#call(call, signal));
      if (answer.status === 404) throw noKeyFragment('has no key fragment for this user');
      return assertSuccess(answer);
    };
    const answer = await retry(fetchOnce, READ_RETRY, signal);
    assertNoWebPage(answer);
    if (answer.body.length === 0) throw noKeyFragment('answered an empty key fragment');
    return answer.body;
  }

  /** Stores `content` as `fileName`. @throws TokenRejectedError */
  async putResource(
    folder: string,
    fileName: string,
    content: Buffer,
    token: string,
    signal: AbortSignal,
  ): Promise<void> {
    const form = new FormData();
    form.append('data', new File([new Uint8Array(content)], fileName, { type: 'application/octet-stream' }));
    assertSuccess(
      assertToken(await this.#call({ method: 'POST', path: `resources/${encodeFolder(folder)}`, token, form }, signal)),
    );
  }

  async #call(call: Call, signal: AbortSignal): Promise<BoundedAnswer> {
    const { baseUrl, dispatcher, timeoutMs } = this.#options;
    try {
      return await boundedCall({
        dispatcher,
        method: call.method,
        url: new URL(call.path, `${baseUrl}/`),
        headers: {
          ...(call.token === undefined ? {} : { authorization: `Bearer ${call.token}` }),
          ...(call.json === undefined ? {} : { 'content-type': 'application/json' }),
        },
        body: call.form ?? (call.json === undefined ? undefined : JSON.stringify(call.json)),
        timeoutMs,
        maxLength: MAX_ANSWER_LENGTH,
        signal,
      });
    } catch (error) {
      signal.throwIfAborted();
      throw toApiError(error, this.#options);
    }
  }
}

function toApiError(error: unknown, { baseUrl, timeoutMs }: ResourceApiOptions): LoaderError {
  const { host } = new URL(baseUrl);
  const options = { cause: error };
  if (error instanceof DeadlineError) {
    return new LoaderError(
      'api_timeout',
      `The Resource API at ${host} did not answer within ${timeoutMs} ms.`,
      options,
    );
  }
  if (error instanceof AnswerTooLongError) {
    return new LoaderError('api_invalid_response', 'The Resource API answered more than 4 MiB.', options);
  }
  const code = systemErrorCode(error) ?? 'unknown';
  return new LoaderError('api_unreachable', `The connection to the Resource API at ${host} failed (${code}).`, options);
}

const READ_RETRY = {
  attempts: READ_ATTEMPTS,
  baseDelayMs: RETRY_BASE_DELAY_MS,
  isRetryable: (error: unknown) =>
    error instanceof LoaderError && (error.code === 'api_unreachable' || error instanceof UnavailableError),
};

/** 502, 503 and 504: the API, or what stands before it, is down for a moment. */
class UnavailableError extends LoaderError {}

function assertToken(answer: BoundedAnswer): BoundedAnswer {
  if (answer.status === 401 || answer.status === 403) throw new TokenRejectedError(`status ${answer.status}`);
  return answer;
}

function assertSuccess(answer: BoundedAnswer): BoundedAnswer {
  if (answer.status === 404) {
    throw new LoaderError('resource_not_in_api', 'The Resource API has no file of that name in that folder.');
  }
  if (answer.status >= 200 && answer.status < 300) return answer;
  const message = `The Resource API answered ${answer.status}.`;
  if ([502, 503, 504].includes(answer.status)) throw new UnavailableError('api_error', message);
  throw new LoaderError('api_error', message);
}

function assertNoWebPage(answer: BoundedAnswer): void {
  if (!String(answer.headers['content-type'] ?? '').startsWith('text/html')) return;
  throw new LoaderError('api_invalid_response', 'The Resource API answered a web page; check RESOURCE_API_URL.');
}

function noKeyFragment(what: string): LoaderError {
  return new LoaderError('key_fragment_invalid', `The Resource API ${what}: ask its administrator for one.`);
}

function parseToken(answer: BoundedAnswer): string {
  const token = asRecord(jsonOf(answer))?.['token'];
  if (typeof token === 'string') return token;
  throw new LoaderError('api_invalid_response', 'The Resource API answered no token; check RESOURCE_API_URL.');
}

function encodeFolder(folder: string): string {
  return folder.split('/').map(encodeURIComponent).join('/');
}
