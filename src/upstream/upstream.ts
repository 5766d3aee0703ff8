import { parseCdnConfig, type CdnConfig } from '../cdn/cdn-config.ts';
import { S3CdnManager } from '../cdn/s3-cdn-manager.ts';
import { LoaderError } from '../errors.ts';
import type { HardwareFingerprint } from '../hardware/hardware-fingerprint.ts';
import type { Logger } from '../logger.ts';
import { deriveAesKey, deriveApiKey, deriveHardwareHash, deriveResourceKey } from '../security/key-derivation.ts';
import { unlessAborted } from '../async/abort.ts';
import type { ResourceApi } from './resource-api.ts';
import { Session } from './api-session.ts';
import { readClaims, type TokenKeys } from './token-claims.ts';
import { userFromClaims, type User } from './user.ts';

export interface ApiClientOptions {
  readonly api: ResourceApi;
  readonly fingerprint: HardwareFingerprint;
  readonly keyTemplates: { readonly hardware: string; readonly api: string };
  /** Secret of the fleet, where cdn.yaml names none. */
  readonly resourceKey: string | undefined;
  readonly tokenKeys: TokenKeys;
  readonly stallTimeoutMs: number;
  readonly logger: Logger;
}

/** What a successful login gives. It never changes: whoever began with it may finish with it. */
export interface Login {
  readonly user: User;
  readonly session: Session;
  readonly cdn: S3CdnManager;
  /** AES key of the resources' envelopes. @throws LoaderError `resource_key_missing` */
  readonly resourceAesKey: () => Buffer;
}

const CDN_CONFIG_FILE = 'cdn.yaml';

/**
 * The Loader's one login to its upstream: Resource API, keys and CDN. There is one instance, made in main.ts.
 */
export class ApiClient {
  readonly #options: ApiClientOptions;
  #login: Login | undefined;
  #attempts = 0;
  #attemptOfLogin = 0;
  readonly #firstLogin = Promise.withResolvers<undefined>();

  constructor(options: ApiClientOptions) {
    this.#options = options;
  }

  get isAuthenticated(): boolean {
    return this.#login !== undefined;
  }

  /** Waits until somebody has logged in. @throws the reason of `signal` */
  async authenticated(signal: AbortSignal): Promise<void> {
    await unlessAborted(this.#firstLogin.promise, signal);
  }

  /** The present login. @throws LoaderError `not_authenticated` */
  currentLogin(): Login {
    if (this.#login === undefined) {
      throw new LoaderError('not_authenticated', 'Nobody is logged in; POST /login first.');
    }
    return this.#login;
  }

  /**
   * Logs in: token, claims, hardware, keys, cdn.yaml. The new login counts when all of it succeeded; otherwise the
   * earlier one stays as it was. Answers the new one.
   *
   * @throws LoaderError whose code tells the step that failed
   */
  async login(email: string, password: string, signal: AbortSignal): Promise<Login> {
    const attempt = ++this.#attempts;
    const login = await this.#createLogin(email, password, signal);
    // Of two at the same time, the one that was asked for later wins, whichever is ready first.
    if (attempt < this.#attemptOfLogin) return login;
    this.#login = login;
    this.#attemptOfLogin = attempt;
    this.#firstLogin.resolve(undefined);
    this.#options.logger.info({ role: login.user.roleName }, 'Logged in');
    return login;
  }

  /** Closes the connections. For the end of the process. */
  close(): void {
    this.#login?.cdn.close();
  }

  async #createLogin(email: string, password: string, signal: AbortSignal): Promise<Login> {
    const { api, fingerprint, keyTemplates, tokenKeys, stallTimeoutMs } = this.#options;
    const token = await api.login(email, password, signal);
    const user = userFromClaims(readClaims(token, tokenKeys));
    const hardware = await fingerprint.hardwareString();
    const hardwareHash = deriveHardwareHash(keyTemplates.hardware, hardware);
    const apiAesKey = deriveAesKey(deriveApiKey(keyTemplates.api, { email, password, hardwareHash }));
    const checkToken = (fresh: string) => void readClaims(fresh, tokenKeys);
    const session = new Session({ api, email, password, hardware, apiAesKey, token, checkToken });
    const cdnConfig = await fetchCdnConfig(session, signal);
    const cdn = new S3CdnManager(cdnConfig, { stallTimeoutMs });
    const resourceKey = cdnConfig.resourceKey ?? this.#options.resourceKey;
    return Object.freeze({
      user,
      session,
      cdn,
      resourceAesKey: () => {
        if (resourceKey !== undefined) return deriveAesKey(deriveResourceKey(resourceKey));
        throw new LoaderError(
          'resource_key_missing',
          'There is no resource key: set RESOURCE_KEY or RESOURCE_KEY_FILE, or resource_key in cdn.yaml.',
        );
      },
    });
  }
}

async function fetchCdnConfig(session: Session, signal: AbortSignal): Promise<CdnConfig> {
  let file: Buffer;
  try {
    file = await session.fetchResource('', CDN_CONFIG_FILE, signal);
  } catch (error) {
    if (!(error instanceof LoaderError) || error.code !== 'envelope_invalid') throw error;
    throw new LoaderError('cdn_config_invalid', error.message, { cause: error.cause });
  }
  return parseCdnConfig(file.toString('utf8'));
}
