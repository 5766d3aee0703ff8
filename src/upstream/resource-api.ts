import { FormData, type Dispatcher } from 'undici';
import { Outage, type Patience } from '../async/outage.ts';
import { hasErrorCode, LoaderError, PassingError } from '../errors.ts';
import { asRecord } from '../json.ts';
import { toLinkError, type Link } from '../link-errors.ts';
import { AnswerTooLongError, boundedCall, DeadlineError, jsonOf, type BoundedAnswer } from '../net/bounded-call.ts';
import { toNetworkFault } from '../net/network-fault.ts';
import { hostAndPort, targetOf } from '../net/proxy-rules.ts';
import { retryAfterOf } from '../net/retry-after.ts';
import type { ServerClock } from '../net/server-clock.ts';

export interface ResourceApiOptions {
  readonly baseUrl: string;
  readonly dispatcher: Dispatcher;
  /** For each attempt of a call, from the connection to the last byte of the answer, in ms. */
  readonly timeoutMs: number;
  /** How long a call of a session waits for an API that fails. A login does not wait. */
  readonly patience: Patience;
  /** Learns the time of the API. */
  readonly clock: Pick<ServerClock, 'note'>;
}

export interface ResourceQuery {
  /** Empty for `cdn.yaml`. */
  readonly folder: string;
  readonly fileName: string;
  readonly password: string;
  readonly hardware: string;
}

/** A token that can be replaced when the API refuses it. */
export interface ApiToken {
  readonly present: string;
  /** Returns a token other than `refused`. @throws LoaderError of the login */
  renew(refused: string): Promise<string>;
}

interface Call {
  readonly method: 'GET' | 'POST';
  /** Path under the base URL, percent-encoded. */
  readonly path: string;
  readonly json?: unknown;
  readonly form?: FormData;
}

/** The longest answer that is accepted, in bytes. All answers are small, and none may exhaust the memory. */
const MAX_ANSWER_LENGTH = 4 * 1024 * 1024;
/** Bytes of a token: it goes back to the API in the headers of each request, which servers limit to as much or less. */
const MAX_TOKEN_LENGTH = 16 * 1024;
/** Bytes of a key fragment. */
const MAX_KEY_FRAGMENT_LENGTH = 64 * 1024;

/**
 * The calls of the Resource API (docs/protocol.md section 5), one method each. It knows no user: tokens are arguments.
 *
 * All calls throw LoaderError `api_unreachable`, `api_timeout`, `api_error` and `api_invalid_response`. Calls with a
 * token are repeated with a fresh one when the API refuses it. They also throw LoaderError of `login` and
 * `token_refused`. Messages and causes never quote the answers of the API: an answer may be a token.
 */
export class ResourceApi {
  readonly #options: ResourceApiOptions;

  constructor(options: ResourceApiOptions) {
    this.#options = options;
  }

  /** Returns the token. @throws LoaderError `wrong_credentials`, `token_invalid` */
  async login(email: string, password: string, signal: AbortSignal): Promise<string> {
    const answer = await this.#call({ method: 'POST', path: 'login', json: { email, password } }, undefined, signal);
    if (answer.status === 401 || answer.status === 409) {
      throw new LoaderError('wrong_credentials', 'The Resource API refused the email and password.');
    }
    assertSuccess(answer);
    return parseToken(answer);
  }

  /** Returns the envelope of a file under the API key. @throws LoaderError `resource_not_in_api` */
  async getResource(query: ResourceQuery, token: ApiToken, signal: AbortSignal): Promise<Buffer> {
    const call: Call = {
      method: 'POST',
      path: `resources/get/${encodeFolder(query.folder)}`,
      json: { fileName: query.fileName, password: query.password, hardware: query.hardware },
    };
    return await this.#callPatiently(call, token, signal);
  }

  /** Returns the bytes of the key fragment as they are. @throws LoaderError `key_fragment_invalid` */
  async getKeyFragment(token: ApiToken, signal: AbortSignal): Promise<Buffer> {
    try {
      const fragment = await this.#callPatiently({ method: 'GET', path: 'binary-split/key-fragment' }, token, signal);
      if (fragment.length > MAX_KEY_FRAGMENT_LENGTH) throw noKeyFragment('sent a key fragment of more than 64 KiB');
      if (fragment.length > 0) return fragment;
    } catch (error) {
      if (!hasErrorCode(error, 'resource_not_in_api')) throw error;
      throw noKeyFragment('has no key fragment for this user');
    }
    throw noKeyFragment('sent an empty key fragment');
  }

  /** Stores `content` as `fileName`. */
  async putResource(
    folder: string,
    fileName: string,
    content: Buffer,
    token: ApiToken,
    signal: AbortSignal,
  ): Promise<void> {
    const form = new FormData();
    form.append('data', new File([new Uint8Array(content)], fileName, { type: 'application/octet-stream' }));
    const call: Call = { method: 'POST', path: `resources/${encodeFolder(folder)}`, form };
    await this.#callPatiently(call, token, signal);
  }

  /** A call that may be repeated after a failure: it changes nothing upstream, or stores the same again. */
  async #callPatiently(call: Call, token: ApiToken, signal: AbortSignal): Promise<Buffer> {
    const outage = new Outage(this.#options.patience);
    for (;;) {
      try {
        return assertSuccess(await this.#callWithToken(call, token, signal)).body;
      } catch (error) {
        await outage.waitOrThrow(error, signal);
      }
    }
  }

  /** Makes the call, and makes it once more with a fresh token when the API refuses the present one. */
  async #callWithToken(call: Call, token: ApiToken, signal: AbortSignal): Promise<BoundedAnswer> {
    const { present } = token;
    const answer = await this.#call(call, present, signal);
    if (!isTokenRefused(answer)) return answer;
    const fresh = await token.renew(present);
    signal.throwIfAborted();
    const second = await this.#call(call, fresh, signal);
    if (!isTokenRefused(second)) return second;
    throw new LoaderError(
      'token_refused',
      `The Resource API refuses this user even with a fresh token (${second.status}).`,
    );
  }

  async #call(call: Call, token: string | undefined, signal: AbortSignal): Promise<BoundedAnswer> {
    const { baseUrl, dispatcher, timeoutMs, clock } = this.#options;
    try {
      const answer = await boundedCall({
        dispatcher,
        method: call.method,
        url: new URL(call.path, `${baseUrl}/`),
        headers: {
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(call.json === undefined ? {} : { 'content-type': 'application/json' }),
        },
        body: call.form ?? (call.json === undefined ? undefined : JSON.stringify(call.json)),
        timeoutMs,
        maxLength: MAX_ANSWER_LENGTH,
        signal,
      });
      clock.note(answer.headers);
      assertNoRedirect(answer, baseUrl);
      return answer;
    } catch (error) {
      signal.throwIfAborted();
      throw toApiError(error, this.#options);
    }
  }
}

const LINK: Link = {
  who: 'The Resource API',
  setting: 'RESOURCE_API_URL',
  unreachable: 'api_unreachable',
  timeout: 'api_timeout',
  invalid: 'api_invalid_response',
};

function toApiError(error: unknown, { baseUrl, timeoutMs }: ResourceApiOptions): LoaderError {
  if (error instanceof LoaderError) return error;
  const host = hostOf(baseUrl);
  const options = { cause: error };
  if (error instanceof DeadlineError) {
    const message = `The Resource API at ${host} did not answer within ${timeoutMs} ms.`;
    return new PassingError('api_timeout', message, options);
  }
  if (error instanceof AnswerTooLongError) {
    const message = `The Resource API at ${host} sent more than 4 MiB; check RESOURCE_API_URL.`;
    return new LoaderError('api_invalid_response', message, options);
  }
  return toLinkError(toNetworkFault(error, host), LINK);
}

function hostOf(url: string): string {
  return hostAndPort(targetOf(new URL(url)));
}

/** A redirect is never followed, since the token would go with it. Of its address, the host alone is shown. */
function assertNoRedirect({ status, headers }: BoundedAnswer, baseUrl: string): void {
  if (![301, 302, 303, 307, 308].includes(status)) return;
  const location = String(headers['location']);
  const target = URL.canParse(location, baseUrl) ? new URL(location, baseUrl).origin : 'an address that is none';
  throw new LoaderError(
    'api_redirected',
    `The Resource API at ${hostOf(baseUrl)} redirects to ${target} (${status}), which is not followed: if that is the API, set RESOURCE_API_URL to it; if it is a login page of the network, log in there.`,
  );
}

/** Statuses that pass by themselves. 500 rarely does: most APIs answer so to what they can't do at all. */
const PASSING: readonly number[] = [408, 425, 429, 502, 503, 504];

function isTokenRefused({ status }: BoundedAnswer): boolean {
  return status === 401 || status === 403;
}

function assertSuccess(answer: BoundedAnswer): BoundedAnswer {
  const { status, headers } = answer;
  const message = `The Resource API answered with status ${status}.`;
  if (PASSING.includes(status)) throw new PassingError('api_error', message, { retryAfterMs: retryAfterOf(headers) });
  if (status === 500) throw new PassingError('api_error', message, { isDoubtful: true });
  assertNoWebPage(answer);
  if (status === 404) {
    throw new LoaderError('resource_not_in_api', 'The Resource API has no file of that name in that folder.');
  }
  if (status >= 200 && status < 300) return answer;
  throw new LoaderError('api_error', message);
}

/** Such as that of a gateway, or of a network that wants a login. */
function assertNoWebPage({ headers }: BoundedAnswer): void {
  if (!String(headers['content-type'] ?? '').startsWith('text/html')) return;
  const message = 'The Resource API sent a web page; check RESOURCE_API_URL.';
  throw new PassingError('api_invalid_response', message, { isDoubtful: true });
}

function noKeyFragment(what: string): LoaderError {
  return new LoaderError('key_fragment_invalid', `The Resource API ${what}: ask its administrator for one.`);
}

function parseToken(answer: BoundedAnswer): string {
  const token = asRecord(jsonOf(answer))?.['token'];
  if (typeof token === 'string' && token.length > MAX_TOKEN_LENGTH) {
    throw new LoaderError(
      'token_invalid',
      'The Resource API sent a token of more than 16 KiB; check RESOURCE_API_URL.',
    );
  }
  if (typeof token === 'string') return token;
  throw new LoaderError('api_invalid_response', 'The Resource API sent no token; check RESOURCE_API_URL.');
}

function encodeFolder(folder: string): string {
  return folder.split('/').map(encodeURIComponent).join('/');
}
