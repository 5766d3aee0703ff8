import type { Dispatcher, FormData } from 'undici';
import { NEVER } from '../async/abort.ts';
import { Outage, type Patience } from '../async/outage.ts';
import { asLoaderError, hasErrorCode, LoaderError, PassingError, systemErrorCode } from '../errors.ts';
import { boundedCall, type BoundedAnswer } from '../net/bounded-call.ts';
import type { ServerClock } from '../net/server-clock.ts';
import { createFormData } from '../net/undici-parts.ts';
import { decryptBuffer, encryptBuffer } from '../security/envelope-cipher.ts';
import { assertNoRedirect, assertSuccess, isTokenRefused, parseToken, tokenRefused } from './api-answers.ts';
import { toApiError } from './api-error.ts';

/** The Resource API, and how it is called. It knows no user. */
export interface ResourceApi {
  readonly baseUrl: string;
  readonly dispatcher: Dispatcher;
  /** For each attempt of a call, from the connection to the last byte of the answer, in ms. */
  readonly timeoutMs: number;
  /** How long a call of a session waits for an API that fails. A login does not wait, but for a connection that breaks. */
  readonly patience: Patience;
  /** Learns the time of the API. */
  readonly clock: Pick<ServerClock, 'note'>;
}

export interface ApiSessionOptions {
  readonly api: ResourceApi;
  readonly email: string;
  readonly password: string;
  readonly hardware: string;
  /** AES key of the envelopes that the API makes for this user on this hardware. */
  readonly apiAesKey: Buffer;
  readonly token: string;
  /** Throws for a token that must not be used. */
  readonly checkToken: (token: string) => void;
  /** The pauses of a test. */
  readonly pauses?: Partial<RenewalPauses>;
}

/** How long no call makes a fresh login after the last one, in ms, so that not each call that is refused makes one. */
export interface RenewalPauses {
  /** After one whose token is refused as well. */
  readonly token: number;
  /** After one that was refused: more of them may lock the account. */
  readonly login: number;
}

interface Call {
  readonly method: 'GET' | 'POST';
  /** Path under the base URL, percent-encoded. */
  readonly path: string;
  readonly json?: unknown;
  readonly form?: FormData;
  /** The file that it asks for, which the API may lack, for people. */
  readonly file?: string;
}

/** The longest answer that is accepted, in bytes. All answers are small, and none may exhaust the memory. */
const MAX_ANSWER_LENGTH = 4 * 1024 * 1024;
/** Codes of a connection that broke. */
const BROKEN: readonly string[] = ['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'];
const PAUSES: RenewalPauses = { token: 10_000, login: 15 * 60_000 };
/** Bytes of a key fragment. */
const MAX_KEY_FRAGMENT_LENGTH = 64 * 1024;

/**
 * Returns the token of a user.
 *
 * @throws LoaderError `wrong_credentials`, `token_invalid`, `api_unreachable`, `api_timeout`, `api_redirected`, `api_error`,
 * `api_invalid_response`
 */
export async function logInToApi(
  api: ResourceApi,
  email: string,
  password: string,
  signal: AbortSignal,
): Promise<string> {
  const call: Call = { method: 'POST', path: 'login', json: { email, password } };
  const answer = await callOnce(api, call, undefined, signal).catch(async (error: unknown) => {
    // The server may just have closed a connection that was idle. That is no outage, so it costs no login.
    const code = error instanceof LoaderError ? systemErrorCode(error.cause) : undefined;
    if (code === undefined || !BROKEN.includes(code)) throw error;
    return await callOnce(api, call, undefined, signal);
  });
  if (answer.status === 401 || answer.status === 409) {
    throw new LoaderError('wrong_credentials', 'The Resource API refused the email and password.');
  }
  return parseToken(assertSuccess(answer, api), api.baseUrl);
}

/**
 * Finds out whether anything answers at the base URL, whatever it says.
 *
 * @throws LoaderError as `logInToApi` does, but for refusals
 */
export async function reachApi(api: ResourceApi, signal: AbortSignal): Promise<void> {
  await callOnce(api, { method: 'GET', path: '' }, undefined, signal);
}

/**
 * The calls of one login to the Resource API (docs/protocol.md section 5). It outlives its token: when the API refuses the
 * token, one fresh login serves all calls that wait for it.
 *
 * A call may be repeated after a failure: it changes nothing upstream, or stores the same again. All calls throw LoaderError
 * of `logInToApi`, and `token_refused`. Messages and causes never quote an answer: it may be a token.
 */
export class ApiSession {
  readonly #options: ApiSessionOptions;
  #token: string;
  #renewal: Promise<string> | undefined;
  /** When the last fresh login ended, and its failure, unless that may pass by itself. */
  #renewed: { readonly atMs: number; readonly failure?: LoaderError } | undefined;

  constructor(options: ApiSessionOptions) {
    this.#options = options;
    this.#token = options.token;
  }

  /** Whether it is of this user, who logged in with this password. */
  isOf(email: string, password: string): boolean {
    return email === this.#options.email && password === this.#options.password;
  }

  /**
   * Fetches a file and decrypts it. `folder` is empty for `cdn.yaml`. An API that fails is waited for as `patience` says;
   * without one, as all calls do.
   *
   * @throws `resource_not_in_api`, `envelope_invalid`
   */
  async fetchResource(folder: string, fileName: string, signal: AbortSignal, patience?: Patience): Promise<Buffer> {
    const { password, hardware, apiAesKey } = this.#options;
    const json = { fileName, password, hardware };
    const path = `resources/get/${encodeFolder(folder)}`;
    const file = folder === '' ? fileName : `${folder}/${fileName}`;
    const envelope = await this.#call({ method: 'POST', path, json, file }, signal, patience);
    try {
      return decryptBuffer(envelope, apiAesKey);
    } catch (error) {
      throw new LoaderError(
        'envelope_invalid',
        `${fileName} from the Resource API can't be decrypted: it was made for another user, password or hardware. Check KEY_TEMPLATE_HARDWARE and KEY_TEMPLATE_API, and that the server knows the hardware of this device.`,
        { cause: error },
      );
    }
  }

  /** Stores a file. */
  async storeResource(folder: string, fileName: string, content: Buffer, signal: AbortSignal): Promise<void> {
    const form = createFormData();
    form.append('data', new File([new Uint8Array(content)], fileName, { type: 'application/octet-stream' }));
    await this.#call({ method: 'POST', path: `resources/${encodeFolder(folder)}`, form }, signal);
  }

  /** Encrypts a small secret so that only this user on this hardware can decrypt it. */
  encrypt(content: Buffer): Buffer {
    return encryptBuffer(content, this.#options.apiAesKey);
  }

  /**
   * Decrypts what `encrypt` of this or an earlier session made. Another key may give other bytes: compare a digest.
   *
   * @throws LoaderError `envelope_invalid` when it was encrypted for another user, password or hardware
   */
  decrypt(envelope: Buffer): Buffer {
    return decryptBuffer(envelope, this.#options.apiAesKey);
  }

  /** Fetches the secret of which the key of the image archive is made. @throws `key_fragment_invalid` */
  async fetchKeyFragment(signal: AbortSignal): Promise<Buffer> {
    try {
      const call: Call = { method: 'GET', path: 'binary-split/key-fragment', file: 'key-fragment' };
      const fragment = await this.#call(call, signal);
      if (fragment.length > MAX_KEY_FRAGMENT_LENGTH) throw noKeyFragment('sent a key fragment of more than 64 KiB');
      if (fragment.length > 0) return fragment;
    } catch (error) {
      if (!hasErrorCode(error, 'resource_not_in_api')) throw error;
      throw noKeyFragment('has no key fragment for this user');
    }
    throw noKeyFragment('sent an empty key fragment');
  }

  async #call(call: Call, signal: AbortSignal, patience = this.#options.api.patience): Promise<Buffer> {
    const outage = new Outage(patience);
    for (;;) {
      try {
        const { baseUrl } = this.#options.api;
        return assertSuccess(await this.#callWithToken(call, signal), { baseUrl, file: call.file }).body;
      } catch (error) {
        await outage.waitOrThrow(error, signal);
      }
    }
  }

  /** Makes the call, and makes it once more with a fresh token when the API refuses the present one. */
  async #callWithToken(call: Call, signal: AbortSignal): Promise<BoundedAnswer> {
    const { api } = this.#options;
    const present = this.#token;
    const answer = await callOnce(api, call, present, signal);
    if (!isTokenRefused(answer)) return answer;
    const fresh = await this.#renew(present, answer);
    signal.throwIfAborted();
    const second = await callOnce(api, call, fresh, signal);
    if (!isTokenRefused(second)) return second;
    throw tokenRefused(second);
  }

  /** Returns a token that the API has not refused yet. `answer` is its refusal of the token `refused`. */
  async #renew(refused: string, answer: BoundedAnswer): Promise<string> {
    // Another call may have renewed it since.
    if (this.#token !== refused) return this.#token;
    if (this.#renewal === undefined && this.#renewed !== undefined) {
      const { token, login } = { ...PAUSES, ...this.#options.pauses };
      const { atMs, failure } = this.#renewed;
      const pauseMs = failure === undefined ? token : login;
      if (performance.now() - atMs < pauseMs) throw failure ?? tokenRefused(answer);
    }
    this.#renewal ??= this.#logIn();
    return await this.#renewal;
  }

  async #logIn(): Promise<string> {
    const { api, email, password, checkToken } = this.#options;
    try {
      // This takes no caller's signal, since other calls may wait for the same token. The deadline of the call ends it.
      const token = await logInToApi(api, email, password, NEVER);
      checkToken(token);
      this.#token = token;
      this.#renewed = { atMs: performance.now() };
      return token;
    } catch (error) {
      const failure = asLoaderError(error);
      if (!(failure instanceof PassingError)) this.#renewed = { atMs: performance.now(), failure };
      throw failure;
    } finally {
      this.#renewal = undefined;
    }
  }
}

async function callOnce(
  api: ResourceApi,
  call: Call,
  token: string | undefined,
  signal: AbortSignal,
): Promise<BoundedAnswer> {
  const { baseUrl, dispatcher, timeoutMs, clock } = api;
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
    throw toApiError(error, api);
  }
}

function noKeyFragment(what: string): LoaderError {
  return new LoaderError('key_fragment_invalid', `The Resource API ${what}: ask its administrator for one.`);
}

function encodeFolder(folder: string): string {
  return folder.split('/').map(encodeURIComponent).join('/');
}
