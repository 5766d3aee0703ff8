import { hasErrorCode, LoaderError, asLoaderError, type ErrorCode } from '../errors.ts';
import { archiveExists, openArchive, readArchiveIdentity } from '../archive/open-archive.ts';
import type { ApiClient } from '../api-client/api-client.ts';
import type { DockerEngine } from '../docker/docker-engine.ts';
import type { LoaderFolders } from '../loader-folders.ts';
import type { ResourceName } from '../resource-name.ts';
import { deriveArchiveAesKey } from '../security/key-derivation.ts';
import type { Presence } from '../unlock/presence.ts';
import type { Session } from '../upstream/upstream.ts';

/** What was found out about one thing that the Loader needs. */
export interface Finding {
  readonly subject: string;
  /** A warning is about what the Loader can do without; `skipped` is what could not be looked at. */
  readonly status: 'ok' | 'warning' | 'failed' | 'skipped';
  /** For people: what is there, or what is wrong and what to do. It holds no secret. */
  readonly text: string;
}

export interface Account {
  readonly email: string;
  readonly password: string;
}

export interface CheckupOptions {
  /** Undefined where nobody's account is known. */
  readonly account: Account | undefined;
  /** A resource that is opened, if one is known. */
  readonly resource: ResourceName | undefined;
  readonly archivePath: string;
  readonly apiHost: string;
  /** Undefined where they are not there yet: a look at them makes them. */
  readonly folders: Pick<LoaderFolders, 'freeCacheBytes' | 'problems'> | undefined;
  readonly apiClient: Pick<ApiClient, 'fingerprint' | 'load' | 'status' | 'upstream'>;
  readonly engine: Pick<DockerEngine, 'connect' | 'host' | 'traits'>;
  readonly presence: Pick<Presence, 'isLoaded'>;
}

/** A login that fails with one of these has got a token: what is wrong comes after that. */
const AFTER_TOKEN: readonly ErrorCode[] = [
  'cdn_config_invalid',
  'envelope_invalid',
  'hardware_unreadable',
  'resource_not_in_api',
  'token_refused',
];
/** ms: signatures and certificates bear more, but a clock that is set by no server goes on drifting. */
const CLOCK_TOLERANCE_MS = 60_000;
const GIB = 1024 ** 3;
const KEYS_SKIPPED: Finding = { subject: 'keys', status: 'skipped', text: 'They are looked at after a login.' };
/** There is no such object: the CDN is asked for it to see whether it answers. */
const ABSENT = { folder: 'loader-doctor', name: 'no-such-object' } as const;

/**
 * Looks at all that the Loader needs, one after the other: folders, hardware string, Resource API, clock, login, keys,
 * CDN, engine and archive. It changes nothing but what a login changes, and gives each failure as a finding.
 */
export class Checkup {
  readonly #options: CheckupOptions;

  constructor(options: CheckupOptions) {
    this.#options = options;
  }

  /** @throws the reason of `signal` */
  async *run(signal: AbortSignal): AsyncGenerator<Finding, void, undefined> {
    yield* this.#checkFolders();
    yield await check('hardware', signal, () => this.#readHardware());
    const api = await check('Resource API', signal, () => this.#reachApi(signal));
    yield api;
    yield this.#checkClock();
    const session = yield* this.#logIn(api.status === 'ok', signal);
    yield* this.#checkResource(session, signal);
    const engine = await check('engine', signal, () => this.#reachEngine(signal));
    yield await this.#withNeed(engine, signal);
    yield await check('archive', signal, () => this.#openArchive(session, engine.status === 'ok', signal));
  }

  async *#checkFolders(): AsyncGenerator<Finding, void, undefined> {
    const { folders } = this.#options;
    if (folders === undefined) return;
    const problems = await folders.problems();
    for (const problem of problems) yield failed('folders', problem);
    if (problems.length > 0) return;
    const gib = ((await folders.freeCacheBytes()) ?? 0) / GIB;
    yield ok('folders', `STATE_DIR and MODEL_CACHE_DIR can be written; the cache has room for ${gib.toFixed(1)} GiB.`);
  }

  async #readHardware(): Promise<string> {
    const { fingerprint } = this.#options.apiClient;
    await fingerprint.hardwareString();
    return `The hardware string is complete; its digest is ${fingerprint.digest ?? 'unknown'}.`;
  }

  async #reachApi(signal: AbortSignal): Promise<string> {
    const startedAtMs = performance.now();
    await this.#options.apiClient.upstream.reachApi(signal);
    const ms = Math.round(performance.now() - startedAtMs);
    return `The Resource API at ${this.#options.apiHost} answers within ${ms} ms.`;
  }

  #checkClock(): Finding {
    const { clockOffsetMs } = this.#options.apiClient.status;
    if (clockOffsetMs === null) return skipped('clock', 'The Resource API, which tells the time, gave no answer.');
    const seconds = Math.round(Math.abs(clockOffsetMs) / 1000);
    if (Math.abs(clockOffsetMs) <= CLOCK_TOLERANCE_MS) return ok('clock', `It is at most ${seconds + 1} s off.`);
    const side = clockOffsetMs > 0 ? 'behind' : 'ahead of';
    return failed(
      'clock',
      `It is ${seconds} s ${side} that of the Resource API: set it, and let a time server keep it.`,
    );
  }

  /** Returns the session of a login that has succeeded. */
  async *#logIn(isReachable: boolean, signal: AbortSignal): AsyncGenerator<Finding, Session | undefined, undefined> {
    const { account, apiClient } = this.#options;
    if (account === undefined) {
      yield skipped('login', 'No account is known: set LOGIN_EMAIL and LOGIN_PASSWORD_FILE, or name one with --email.');
      yield KEYS_SKIPPED;
      return undefined;
    }
    if (!isReachable) {
      yield skipped('login', 'The Resource API gave no answer.');
      yield KEYS_SKIPPED;
      return undefined;
    }
    let session: Session;
    try {
      session = await apiClient.upstream.login(account.email, account.password, signal);
    } catch (error) {
      signal.throwIfAborted();
      const failure = asLoaderError(error);
      if (AFTER_TOKEN.includes(failure.code)) {
        yield ok('login', 'The Resource API takes the email and the password.');
        yield failed('keys', `cdn.yaml does not open. ${failure.message}`);
      } else {
        yield failed('login', failure.message);
        yield KEYS_SKIPPED;
      }
      return undefined;
    }
    yield ok('login', `The Resource API takes the email and the password; the role is ${session.user.roleName}.`);
    yield ok('keys', 'cdn.yaml opens: templates, password and hardware string make the right key.');
    return session;
  }

  async *#checkResource(session: Session | undefined, signal: AbortSignal): AsyncGenerator<Finding, void, undefined> {
    const { resource } = this.#options;
    if (session === undefined) {
      yield skipped('CDN', 'It is looked at after a login, since cdn.yaml names it.');
      yield skipped('resource key', 'It is looked at after a login.');
      return;
    }
    yield await checkCdn(session, signal);
    if (resource === undefined) {
      yield await check('resource key', signal, () => {
        session.resourceAesKey();
        return Promise.resolve('There is one. To see whether it is right, name a resource: --resource FOLDER/FILE.');
      });
      return;
    }
    yield await check('resource key', signal, async () => {
      await using opened = await this.#options.apiClient.load(resource, signal);
      return `${resource.folder}/${resource.name} opens, so it is right: ${opened.length} bytes, from the ${opened.source === 'cdn' ? 'CDN' : 'cache'}.`;
    });
  }

  async #reachEngine(signal: AbortSignal): Promise<string> {
    const { engine } = this.#options;
    await engine.connect(signal);
    const { identifiesByManifest } = await engine.traits(signal);
    return `The engine at ${engine.host} answers${identifiesByManifest ? ', with the containerd image store' : ''}.`;
  }

  /** Without an archive there is nothing to unlock, and a device may have no engine. */
  async #withNeed(engine: Finding, signal: AbortSignal): Promise<Finding> {
    if (engine.status !== 'failed') return engine;
    signal.throwIfAborted();
    const exists = await archiveExists(this.#options.archivePath).catch(() => true);
    return exists ? engine : { ...engine, status: 'warning' };
  }

  async #openArchive(session: Session | undefined, hasEngine: boolean, signal: AbortSignal): Promise<Finding | string> {
    const { archivePath, presence } = this.#options;
    if (!(await archiveExists(archivePath))) {
      if (hasEngine && (await presence.isLoaded(signal))) return 'There is none, and the engine has the images.';
      const text = `There is no ${archivePath}: POST /unlock fails until it is there. Set IMAGES_PATH if it lies elsewhere.`;
      return { subject: 'archive', status: 'warning', text };
    }
    if (session === undefined) {
      const { length } = await readArchiveIdentity(archivePath);
      const text = `${archivePath} can be read (${length} bytes). Whether its key is right is seen after a login.`;
      return skipped('archive', text);
    }
    const key = deriveArchiveAesKey(await session.api.fetchKeyFragment(signal));
    await (await openArchive(archivePath, key))[Symbol.asyncDispose]();
    return `${archivePath} opens with the key fragment of the Resource API.`;
  }
}

async function checkCdn({ cdn }: Session, signal: AbortSignal): Promise<Finding> {
  const reached = ok('CDN', 'It answers, and takes the keys of cdn.yaml for downloads.');
  try {
    // An answer to HEAD has no body that would tell a wrong key from a wrong secret.
    await cdn.openObject(ABSENT.folder, ABSENT.name, 1, signal);
    return reached;
  } catch (error) {
    signal.throwIfAborted();
    const failure = asLoaderError(error);
    if (failure.code === 'resource_not_in_cdn') return reached;
    // Without a bucket in cdn.yaml the folder names it, and there is none of that name.
    if (cdn.bucket === undefined && hasErrorCode(failure, 'cdn_bucket_missing', 'cdn_access_denied')) {
      return skipped(
        'CDN',
        'It answers. cdn.yaml names no bucket: --resource FOLDER/FILE shows whether its keys are right.',
      );
    }
    // Amazon S3 answers so to keys that may not list, where an object does not exist.
    const hint = ' Keys that may not list objects look the same: --resource FOLDER/FILE tells them apart.';
    return failed('CDN', failure.message + (failure.code === 'cdn_access_denied' ? hint : ''));
  }
}

/** What `look` says is well, unless it returns a finding of its own. What it throws is a failure. */
async function check(subject: string, signal: AbortSignal, look: () => Promise<Finding | string>): Promise<Finding> {
  try {
    const found = await look();
    return typeof found === 'string' ? ok(subject, found) : found;
  } catch (error) {
    signal.throwIfAborted();
    const { message, cause } = asLoaderError(error);
    const isKnown = error instanceof LoaderError;
    return failed(subject, isKnown || !(cause instanceof Error) ? message : `${message} (${cause.message})`);
  }
}

function ok(subject: string, text: string): Finding {
  return { subject, status: 'ok', text };
}

function failed(subject: string, text: string): Finding {
  return { subject, status: 'failed', text };
}

function skipped(subject: string, text: string): Finding {
  return { subject, status: 'skipped', text };
}
