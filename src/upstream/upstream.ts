import { happens, unlessAborted } from '../async/abort.ts';
import { Changes } from '../async/changes.ts';
import { pause } from '../async/pause.ts';
import { parseCdnConfig, type CdnConfig } from '../cdn/cdn-config.ts';
import type { S3CdnManager } from '../cdn/s3-cdn-manager.ts';
import { asLoaderError, hasErrorCode, LoaderError, PassingError, type ErrorCode } from '../errors.ts';
import type { HardwareFingerprint } from '../hardware/hardware-fingerprint.ts';
import type { KnownSecrets } from '../log/known-secrets.ts';
import type { Logger } from '../log/logger.ts';
import { RepeatedLine } from '../log/repeated-line.ts';
import type { SecurityKeys } from '../security/security-keys.ts';
import { ApiSession, logInToApi, reachApi, type ResourceApi } from './api-session.ts';
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
  /** Is told how each login has ended. */
  readonly onLogin?: (outcome: 'ok' | ErrorCode) => void;
  readonly logger: Logger;
}

const CDN_CONFIG_FILE = 'cdn.yaml';
/** How much later a login beside begins, in ms: its first one reads the AWS SDK, and the answer to its caller goes first. */
const BESIDE_DELAY_MS = 200;

/** What a successful login gives. It never changes: work that begins with a session also ends with it. */
export class Session {
  readonly user: User;
  readonly api: Pick<ApiSession, 'decrypt' | 'encrypt' | 'fetchKeyFragment' | 'fetchResource' | 'storeResource'>;
  readonly cdn: S3CdnManager;
  readonly #account: Pick<ApiSession, 'isOf'>;
  readonly #resourceAesKey: Buffer | undefined;

  constructor(user: User, api: ApiSession, cdn: S3CdnManager, resourceAesKey: Buffer | undefined) {
    this.user = user;
    this.api = api;
    this.#account = api;
    this.cdn = cdn;
    this.#resourceAesKey = resourceAesKey;
  }

  /** Whether it is of this user, who logged in with this password. */
  isOf(email: string, password: string): boolean {
    return this.#account.isOf(email, password);
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

/** What became of the logins since the start. */
export interface LoginStatus {
  readonly user: User | undefined;
  /** When that user logged in. */
  readonly since: Date | undefined;
  /** Why the last login failed, unless one has succeeded since. */
  readonly failure: LoaderError | undefined;
}

/** Knows the user who is logged in to the Resource API and, with the keys that it hands out, to the CDN. */
export class Upstream {
  readonly #options: UpstreamOptions;
  readonly #logins = new Changes();
  readonly #failureLine = new RepeatedLine();
  #session: Session | undefined;
  #since: Date | undefined;
  #failure: LoaderError | undefined;
  /** Resolves at the end of the login that began last. */
  #underWay: Promise<undefined> | undefined;
  #attempts = 0;
  #attemptOfSession = 0;

  constructor(options: UpstreamOptions) {
    this.#options = options;
  }

  get isAuthenticated(): boolean {
    return this.#session !== undefined;
  }

  get latestSession(): Session | undefined {
    return this.#session;
  }

  get loginStatus(): LoginStatus {
    return { user: this.#session?.user, since: this.#since, failure: this.#failure };
  }

  /** Finds out whether the Resource API answers. @throws LoaderError, whose code begins with `api_` or tells what is on the way */
  async reachApi(signal: AbortSignal): Promise<void> {
    await reachApi(this.#options.api, signal);
  }

  /** Waits for the first login. @throws the reason of `signal` */
  async authenticated(signal: AbortSignal): Promise<void> {
    while (!this.isAuthenticated) await unlessAborted(this.nextLogin, signal);
  }

  /** Resolves at the next login. */
  get nextLogin(): Promise<undefined> {
    return this.#logins.next;
  }

  /**
   * The session of the last login. Where there is none, but a login is under way, its end is waited for, up to the deadline
   * of one call of the Resource API.
   *
   * @throws LoaderError `not_authenticated`; the reason of `signal`
   */
  async session(signal: AbortSignal): Promise<Session> {
    if (this.#session === undefined && this.#underWay !== undefined) {
      const deadline = AbortSignal.timeout(this.#options.api.timeoutMs);
      await happens(this.#underWay, AbortSignal.any([signal, deadline]));
      signal.throwIfAborted();
    }
    return this.currentSession();
  }

  /** The session of the last login. @throws LoaderError `not_authenticated` */
  currentSession(): Session {
    if (this.#session !== undefined) return this.#session;
    throw this.#notAuthenticated();
  }

  /** The failure of all that needs a login, while no user is logged in. */
  get missingLogin(): LoaderError | undefined {
    return this.#session === undefined ? this.#notAuthenticated() : undefined;
  }

  #notAuthenticated(): LoaderError {
    const why = this.#failure === undefined ? 'POST /login first.' : `the last login failed. ${this.#failure.message}`;
    return new LoaderError('not_authenticated', `No user is logged in: ${why}`);
  }

  /**
   * Logs in: token, claims, hardware, keys, cdn.yaml. The new session takes the place of the earlier one when all of these
   * have succeeded. After a failure the earlier one stays.
   *
   * @throws LoaderError whose code tells the step that failed
   */
  async login(email: string, password: string, signal: AbortSignal): Promise<Session> {
    return await this.#login(email, password, signal);
  }

  async #login(email: string, password: string, signal: AbortSignal, delayMs = 0): Promise<Session> {
    const { promise: ended, resolve: end } = Promise.withResolvers<undefined>();
    this.#underWay = ended;
    const attempt = ++this.#attempts;
    try {
      if (delayMs > 0) await pause(delayMs, signal);
      const session = await this.#createSession(email, password, signal);
      // When two logins run at the same time, the one that began later wins.
      if (attempt > this.#attemptOfSession) this.#begin(session, attempt);
      this.#options.onLogin?.('ok');
      return session;
    } catch (error) {
      if (!signal.aborted) this.#noteFailure(asLoaderError(error), attempt);
      throw error;
    } finally {
      if (this.#underWay === ended) this.#underWay = undefined;
      end(undefined);
    }
  }

  /**
   * Logs in for work that does not wait for it, unless this user is logged in already or a login is under way. It never
   * fails: `login` tells the failure in log and status.
   */
  async logInBeside(email: string, password: string, signal: AbortSignal): Promise<void> {
    if (this.#underWay !== undefined || this.#session?.isOf(email, password) === true) return;
    await this.#login(email, password, signal, BESIDE_DELAY_MS).catch(() => undefined);
  }

  #begin(session: Session, attempt: number): void {
    this.#session = session;
    this.#since = new Date();
    this.#failure = undefined;
    this.#attemptOfSession = attempt;
    this.#logins.announce();
    this.#options.logger.info({ role: session.user.roleName }, 'Logged in');
  }

  #noteFailure(failure: LoaderError, attempt: number): void {
    if (attempt > this.#attemptOfSession) this.#failure = failure;
    const { code, message } = failure;
    this.#options.onLogin?.(code);
    const times = this.#failureLine.times(code);
    if (times === undefined) return;
    const line = { err: failure, code, ...(times > 1 && { times }) };
    const { logger } = this.#options;
    // Nothing works without the API, while a refusal concerns one user.
    if (failure instanceof PassingError) logger.error(line, `The login failed: ${message}`);
    else logger.warn(line, `The login failed: ${message}`);
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
