import { unlessAborted } from '../async/abort.ts';
import { Changes } from '../async/changes.ts';
import { parseCdnConfig, type CdnConfig } from '../cdn/cdn-config.ts';
import type { S3CdnManager } from '../cdn/s3-cdn-manager.ts';
import { hasErrorCode, LoaderError } from '../errors.ts';
import type { HardwareFingerprint } from '../hardware/hardware-fingerprint.ts';
import type { KnownSecrets } from '../log/known-secrets.ts';
import type { Logger } from '../log/logger.ts';
import type { SecurityKeys } from '../security/security-keys.ts';
import { ApiSession, logInToApi, type ResourceApi } from './api-session.ts';
import { readClaims, type TokenKeys } from './token-claims.ts';
import { userFromClaims, type User } from './user.ts';

export interface UpstreamOptions {
  readonly api: ResourceApi;
  readonly fingerprint: Pick<HardwareFingerprint, 'accept' | 'hardwareString'>;
  readonly keys: SecurityKeys;
  readonly tokenKeys: TokenKeys;
  /** Reads the code of the CDN from disk, while a login waits for other things. */
  readonly loadCdn: () => Promise<(config: CdnConfig) => S3CdnManager>;
  /** Gets the secrets of each login, so that the log leaves them out. */
  readonly secrets: KnownSecrets;
  readonly logger: Logger;
}

const CDN_CONFIG_FILE = 'cdn.yaml';

/** What a successful login gives. It never changes: work that begins with a session also ends with it. */
export class Session {
  readonly user: User;
  readonly api: Pick<ApiSession, 'decrypt' | 'encrypt' | 'fetchKeyFragment' | 'fetchResource' | 'storeResource'>;
  readonly cdn: S3CdnManager;
  readonly #resourceAesKey: Buffer | undefined;

  constructor(user: User, api: ApiSession, cdn: S3CdnManager, resourceAesKey: Buffer | undefined) {
    this.user = user;
    this.api = api;
    this.cdn = cdn;
    this.#resourceAesKey = resourceAesKey;
  }

  /** AES key of the resources' envelopes. @throws LoaderError `resource_key_missing` */
  resourceAesKey(): Buffer {
    if (this.#resourceAesKey !== undefined) return this.#resourceAesKey;
    throw new LoaderError(
      'resource_key_missing',
      'There is no resource key: set RESOURCE_KEY or RESOURCE_KEY_FILE, or resource_key in cdn.yaml.',
    );
  }
}

/** Knows the user who is logged in to the Resource API and, with the keys that it hands out, to the CDN. */
export class Upstream {
  readonly #options: UpstreamOptions;
  readonly #logins = new Changes();
  #session: Session | undefined;
  #attempts = 0;
  #attemptOfSession = 0;

  constructor(options: UpstreamOptions) {
    this.#options = options;
  }

  get isAuthenticated(): boolean {
    return this.#session !== undefined;
  }

  /** Waits for the first login. @throws the reason of `signal` */
  async authenticated(signal: AbortSignal): Promise<void> {
    while (!this.isAuthenticated) await unlessAborted(this.nextLogin, signal);
  }

  /** Resolves at the next login. */
  get nextLogin(): Promise<undefined> {
    return this.#logins.next;
  }

  /** The session of the last login. @throws LoaderError `not_authenticated` */
  currentSession(): Session {
    if (this.#session === undefined) {
      throw new LoaderError('not_authenticated', 'No user is logged in: POST /login first.');
    }
    return this.#session;
  }

  /**
   * Logs in: token, claims, hardware, keys, cdn.yaml. The new session takes the place of the earlier one when all of these
   * have succeeded. After a failure the earlier one stays.
   *
   * @throws LoaderError whose code tells the step that failed
   */
  async login(email: string, password: string, signal: AbortSignal): Promise<Session> {
    const attempt = ++this.#attempts;
    const session = await this.#createSession(email, password, signal);
    // When two logins run at the same time, the one that began later wins.
    if (attempt < this.#attemptOfSession) return session;
    this.#session = session;
    this.#attemptOfSession = attempt;
    this.#logins.announce();
    this.#options.logger.info({ role: session.user.roleName }, 'Logged in');
    return session;
  }

  async #createSession(email: string, password: string, signal: AbortSignal): Promise<Session> {
    const { api, fingerprint, keys, tokenKeys, loadCdn, secrets } = this.#options;
    secrets.add(password);
    const token = await logInToApi(api, email, password, signal);
    secrets.add(token);
    const user = userFromClaims(readClaims(token, tokenKeys));
    const loadingCdn = loadCdn();
    loadingCdn.catch(() => undefined); // It is awaited below, unless the login fails before.
    const hardware = await fingerprint.hardwareString();
    const apiSession = new ApiSession({
      api,
      email,
      password,
      hardware,
      apiAesKey: keys.apiAesKey({ email, password, hardware }),
      token,
      checkToken: (fresh) => {
        secrets.add(fresh);
        readClaims(fresh, tokenKeys);
      },
    });
    const cdnConfig = await fetchCdnConfig(apiSession, signal);
    const { downloader, uploader, resourceKey } = cdnConfig;
    secrets.add(downloader.secretAccessKey, uploader.secretAccessKey, resourceKey);
    // The key is derived once, for all loads and uploads of the session. A login needs no resource key.
    const openCdn = await loadingCdn;
    const session = new Session(user, apiSession, openCdn(cdnConfig), keys.resourceAesKey(resourceKey));
    // Under the keys of other hardware, cdn.yaml would not have been readable.
    await fingerprint.accept(hardware);
    return session;
  }
}

async function fetchCdnConfig(api: ApiSession, signal: AbortSignal): Promise<CdnConfig> {
  try {
    return parseCdnConfig((await api.fetchResource('', CDN_CONFIG_FILE, signal)).toString('utf8'));
  } catch (error) {
    if (!hasErrorCode(error, 'envelope_invalid')) throw error;
    throw new LoaderError('cdn_config_invalid', error.message, { cause: error.cause });
  }
}
