import { NEVER } from '../async/abort.ts';
import { LoaderError } from '../errors.ts';
import { decryptBuffer, encryptBuffer } from '../security/envelope-cipher.ts';
import type { ApiToken, ResourceApi } from './resource-api.ts';

export interface ApiSessionOptions {
  readonly api: Pick<ResourceApi, 'getKeyFragment' | 'getResource' | 'login' | 'putResource'>;
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
 * The calls of one login to the Resource API. It outlives its token: when the API refuses the token, one fresh login
 * serves all calls that wait for it.
 */
export class ApiSession implements ApiToken {
  readonly #options: ApiSessionOptions;
  #token: string;
  #renewal: Promise<string> | undefined;

  constructor(options: ApiSessionOptions) {
    this.#options = options;
    this.#token = options.token;
  }

  /** Fetches a file and decrypts it. @throws LoaderError of ResourceApi, `envelope_invalid` */
  async fetchResource(folder: string, fileName: string, signal: AbortSignal): Promise<Buffer> {
    const { api, password, hardware, apiAesKey } = this.#options;
    const envelope = await api.getResource({ folder, fileName, password, hardware }, this, signal);
    try {
      return decryptBuffer(envelope, apiAesKey);
    } catch (error) {
      throw new LoaderError(
        'envelope_invalid',
        `${fileName} from the Resource API can't be decrypted: it was made for another user, password or hardware.`,
        { cause: error },
      );
    }
  }

  /** Stores a file. @throws LoaderError of ResourceApi */
  async storeResource(folder: string, fileName: string, content: Buffer, signal: AbortSignal): Promise<void> {
    await this.#options.api.putResource(folder, fileName, content, this, signal);
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

  /** Fetches the secret of which the key of the image archive is made. @throws LoaderError of ResourceApi */
  async fetchKeyFragment(signal: AbortSignal): Promise<Buffer> {
    return await this.#options.api.getKeyFragment(this, signal);
  }

  get present(): string {
    return this.#token;
  }

  async renew(refused: string): Promise<string> {
    // Another call may have renewed it since.
    if (this.#token !== refused) return this.#token;
    this.#renewal ??= this.#login();
    return await this.#renewal;
  }

  async #login(): Promise<string> {
    const { api, email, password, checkToken } = this.#options;
    try {
      // This takes no caller's signal, since other calls may wait for the same token. The deadline of the call ends it.
      const token = await api.login(email, password, NEVER);
      checkToken(token);
      this.#token = token;
      return token;
    } finally {
      this.#renewal = undefined;
    }
  }
}
