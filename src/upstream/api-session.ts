import { LoaderError } from '../errors.ts';
import { decryptBuffer } from '../security/envelope-cipher.ts';
import { TokenRejectedError, type ResourceApi } from './resource-api.ts';
import { NEVER } from '../async/abort.ts';

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
}

/**
 * One login to the Resource API. It outlives its token: when that is refused, one fresh login serves all who wait, and
 * each retries once.
 */
export class ApiSession {
  readonly #options: ApiSessionOptions;
  #token: string;
  #renewal: Promise<string> | undefined;

  constructor(options: ApiSessionOptions) {
    this.#options = options;
    this.#token = options.token;
  }

  /** Fetches a file and decrypts it. @throws LoaderError of ResourceApi, `token_refused`, `envelope_invalid` */
  async fetchResource(folder: string, fileName: string, signal: AbortSignal): Promise<Buffer> {
    const { api, password, hardware, apiAesKey } = this.#options;
    const envelope = await this.#withToken(signal, (token) =>
      api.getResource({ folder, fileName, password, hardware }, token, signal),
    );
    try {
      return decryptBuffer(envelope, apiAesKey);
    } catch (error) {
      throw new LoaderError(
        'envelope_invalid',
        `${fileName} from the Resource API can't be decrypted: it is made for another user, password or hardware.`,
        { cause: error },
      );
    }
  }

  /** Stores a file. @throws LoaderError of ResourceApi, `token_refused` */
  async storeResource(folder: string, fileName: string, content: Buffer, signal: AbortSignal): Promise<void> {
    await this.#withToken(signal, (token) => this.#options.api.putResource(folder, fileName, content, token, signal));
  }

  /** Fetches the secret of which the image archive's key is made. @throws LoaderError of ResourceApi, `token_refused` */
  async fetchKeyFragment(signal: AbortSignal): Promise<Buffer> {
    return await this.#withToken(signal, (token) => this.#options.api.getKeyFragment(token, signal));
  }

  async #withToken<T>(signal: AbortSignal, call: (token: string) => Promise<T>): Promise<T> {
    const token = this.#token;
    try {
      return await call(token);
    } catch (error) {
      if (!(error instanceof TokenRejectedError)) throw error;
    }
    const freshToken = await this.#renew(token);
    signal.throwIfAborted();
    try {
      return await call(freshToken);
    } catch (error) {
      if (!(error instanceof TokenRejectedError)) throw error;
      throw new LoaderError('token_refused', 'The Resource API refuses this user even with a fresh token.', {
        cause: error,
      });
    }
  }

  async #renew(rejectedToken: string): Promise<string> {
    // Somebody else has renewed it since.
    if (this.#token !== rejectedToken) return this.#token;
    this.#renewal ??= this.#login().finally(() => {
      this.#renewal = undefined;
    });
    return await this.#renewal;
  }

  async #login(): Promise<string> {
    const { api, email, password, checkToken } = this.#options;
    // No caller's signal: others may wait for the same token. The API client's own deadline ends it.
    const token = await api.login(email, password, NEVER);
    checkToken(token);
    this.#token = token;
    return token;
  }
}
