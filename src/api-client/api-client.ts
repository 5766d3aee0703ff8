import type { Dispatcher } from 'undici';
import { ActiveWork } from '../async/active-work.ts';
import { KeyedReadWriteLock } from '../async/keyed-read-write-lock.ts';
import { UnlockWorker, type UnlockJob } from '../binary-split/unlock-worker.ts';
import type { BigPartCache } from '../cache/big-part-cache.ts';
import type { CdnLinks } from '../cdn/s3-cdn-manager.ts';
import type { DockerEngine } from '../docker/docker-engine.ts';
import type { ChangingFile } from '../files/changing-file.ts';
import { WorkMemory } from '../files/work-memory.ts';
import { HardwareFingerprint } from '../hardware/hardware-fingerprint.ts';
import { KeptHardware } from '../hardware/kept-hardware.ts';
import type { KnownSecrets } from '../log/known-secrets.ts';
import type { Logger } from '../log/logger.ts';
import type { Metrics } from '../metrics/metrics.ts';
import type { ServerClock } from '../net/server-clock.ts';
import type { ResourceName } from '../resource-name.ts';
import { ChunkPool } from '../resources/chunk-pool.ts';
import { CopyProofs } from '../resources/copy-proofs.ts';
import { DownloadService, type OpenResource } from '../resources/download-service.ts';
import { ResourceList, type ResourcePage, type ResourceQuery } from '../resources/resource-list.ts';
import { ResourceManifests, type ResourceManifestsOptions } from '../resources/resource-manifests.ts';
import { RevisionMemory } from '../resources/revision-memory.ts';
import { SharedTransfers } from '../resources/shared-transfers.ts';
import { UploadJournal } from '../resources/upload-journal.ts';
import { UploadRecovery } from '../resources/upload-recovery.ts';
import { UploadService, type UploadItem } from '../resources/upload-service.ts';
import { SecurityKeys, type SecurityKeysOptions } from '../security/security-keys.ts';
import type { Presence } from '../unlock/presence.ts';
import { receiptPath } from '../unlock/receipt.ts';
import { ReleaseWatch } from '../unlock/release-watch.ts';
import { UnlockService, type UnlockStatus } from '../unlock/unlock-service.ts';
import type { UnlockState } from '../unlock/unlock-state-machine.ts';
import { OwnLogin } from '../upstream/own-login.ts';
import type { TokenKeys } from '../upstream/token-claims.ts';
import { Upstream } from '../upstream/upstream.ts';

export interface ApiClientOptions {
  readonly resourceApiUrl: string;
  /** The connections to the Resource API and to the CDN. They outlive every login. */
  readonly links: CdnLinks & { readonly api: Dispatcher };
  readonly clock: ServerClock;
  readonly upstreamTimeoutMs: number;
  readonly stallTimeoutMs: number;
  /** Bytes that all uploads and transfers may hold together. */
  readonly memoryBudget: number;
  /** Replaces the hardware string of this machine. */
  readonly hardwareId: string | undefined;
  readonly keys: SecurityKeysOptions;
  readonly tokenKeys: TokenKeys;
  /** Which keys sign the manifests of uploads, and which are taken. */
  readonly manifests: Omit<ResourceManifestsOptions, 'revisions'>;
  /** The account that it logs in with by itself, if there is one. */
  readonly ownAccount: { readonly email: string; readonly password: ChangingFile<string> } | undefined;
  readonly cache: BigPartCache;
  /** Keeps the journal of uploads, the receipt, and the hardware string that the server accepted. */
  readonly stateDir: string;
  /** After how long both parts of a finished upload are looked at once more, in ms. */
  readonly secondLookMs: number;
  readonly engine: Pick<DockerEngine, 'imageEvents'>;
  readonly presence: Presence;
  readonly unlockJob: UnlockJob;
  /** Is told how each login and each unlock has ended. */
  readonly metrics: Pick<Metrics, 'noteLogin' | 'noteUnlock'>;
  /** Gets the secrets of each login, so that the log leaves them out. */
  readonly secrets: KnownSecrets;
  readonly logger: Logger;
}

export interface ApiClientStatus {
  readonly isAuthenticated: boolean;
  /** The time of the servers minus that of this device, in ms; null before the first answer. */
  readonly clockOffsetMs: number | null;
}

/**
 * What the routes call: one instance, made in services.ts. It composes the security keys, the hardware fingerprint, the
 * S3 CDN manager, downloads and uploads, and the binary-split unlock worker, and owns what is in flight of them.
 */
export class ApiClient {
  /** Who is logged in. */
  readonly upstream: Upstream;
  readonly fingerprint: HardwareFingerprint;
  /** What all uploads and transfers hold. */
  readonly workMemory: WorkMemory;
  readonly downloads: DownloadService;
  readonly uploads: UploadService;
  readonly unlocks: UnlockService;
  readonly #chunkPool = new ChunkPool();
  readonly #resourceList: ResourceList;
  readonly #journal: UploadJournal;
  readonly #recovery: UploadRecovery;
  readonly #releaseWatch: ReleaseWatch;
  readonly #ownLogin: OwnLogin | undefined;
  readonly #inFlight = new ActiveWork();
  readonly #closing = new AbortController();
  readonly #clock: ServerClock;
  #working: Promise<unknown> = Promise.resolve();

  constructor(options: ApiClientOptions) {
    const { cache, links, clock, logger, metrics, presence, stallTimeoutMs, unlockJob } = options;
    const patience = { limitMs: stallTimeoutMs, setting: 'STALL_TIMEOUT_MS' };
    this.#clock = clock;
    this.#resourceList = new ResourceList(cache);
    this.workMemory = new WorkMemory(options.memoryBudget);
    this.fingerprint = new HardwareFingerprint({
      hardwareId: options.hardwareId,
      kept: new KeptHardware(options.stateDir, logger),
      logger,
    });
    this.upstream = new Upstream({
      api: {
        baseUrl: options.resourceApiUrl,
        dispatcher: links.api,
        timeoutMs: options.upstreamTimeoutMs,
        patience,
        clock,
      },
      fingerprint: this.fingerprint,
      keys: new SecurityKeys(options.keys),
      tokenKeys: options.tokenKeys,
      loadCdn: async () => {
        // The AWS SDK is large, and nothing needs it before the first login.
        const { S3CdnManager } = await import('../cdn/s3-cdn-manager.ts');
        return (config) => new S3CdnManager(config, { patience, links, clock });
      },
      secrets: options.secrets,
      onLogin: (outcome) => metrics.noteLogin(outcome),
      logger,
    });
    const { ownAccount } = options;
    this.#ownLogin = ownAccount && new OwnLogin({ ...ownAccount, upstream: this.upstream });
    this.#journal = new UploadJournal(options.stateDir, logger);
    const memory = this.workMemory;
    const revisions = new RevisionMemory(options.stateDir, logger);
    const manifests = new ResourceManifests({ ...options.manifests, revisions });
    const publicationLocks = new KeyedReadWriteLock();
    const shared = { upstream: this.upstream, cache, memory, manifests, publicationLocks, logger };
    this.downloads = new DownloadService({
      ...shared,
      proofs: new CopyProofs({ cache, logger }),
      transfers: new SharedTransfers({ cache, memory, pool: this.#chunkPool, logger }),
      pool: this.#chunkPool,
      patience,
    });
    const journaled = { ...shared, journal: this.#journal };
    this.uploads = new UploadService(journaled);
    this.#recovery = new UploadRecovery({ ...journaled, secondLookMs: options.secondLookMs });
    this.unlocks = new UnlockService({
      upstream: this.upstream,
      presence,
      archivePath: unlockJob.path,
      receiptPath: receiptPath(options.stateDir),
      createWorker: () => new UnlockWorker(unlockJob),
      onEnd: (outcome) => metrics.noteUnlock(outcome),
      logger,
    });
    this.#releaseWatch = new ReleaseWatch({ engine: options.engine, unlocks: this.unlocks, logger });
  }

  get status(): ApiClientStatus {
    return { isAuthenticated: this.upstream.isAuthenticated, clockOffsetMs: this.#clock.offsetMs };
  }

  /**
   * Begins the work that no request asks for: it logs in where it has an account, ends the uploads that were broken off,
   * and watches over the release.
   * Call it once, at the start.
   */
  async start(): Promise<void> {
    await this.#journal.load();
    const { signal } = this.#closing;
    this.#working = Promise.all([
      this.#ownLogin?.run(signal),
      this.#recovery.run(signal),
      this.#releaseWatch.run(signal),
    ]);
  }

  /** @throws LoaderError whose code tells the step that failed */
  async login(email: string, password: string, signal: AbortSignal): Promise<void> {
    await this.upstream.login(email, password, signal);
  }

  /**
   * Opens a resource. All but the bytes in its middle is checked here, before the first one leaves. It counts as in flight
   * until its disposal.
   *
   * @throws LoaderError whose code tells what is missing or wrong
   */
  async load(resource: ResourceName, signal: AbortSignal): Promise<OpenResource> {
    await using owned = new AsyncDisposableStack();
    owned.use(this.#inFlight.track());
    const opened = owned.use(await this.downloads.open(resource, signal));
    const moved = owned.move();
    return { ...opened, [Symbol.asyncDispose]: () => moved.disposeAsync() };
  }

  /** What the cache has, page by page. @throws the reason of `signal` */
  async cachedResources(query: ResourceQuery, signal: AbortSignal): Promise<ResourcePage> {
    return await this.#resourceList.page(query, signal);
  }

  /** Stores what `items` brings under `name`. @throws LoaderError, or the error of `items` */
  async upload(name: string, items: AsyncIterable<UploadItem>, signal: AbortSignal): Promise<void> {
    using _work = this.#inFlight.track();
    await this.uploads.upload(name, items, signal);
  }

  /** Starts an unlock unless one is under way or done, and returns the state then. @throws as UnlockService.start */
  async unlock(email: string, password: string): Promise<UnlockState> {
    return await this.unlocks.start(email, password);
  }

  /** Ends the unlock that is under way, if any, and returns the state when all its side effects have stopped. */
  async cancelUnlock(): Promise<UnlockState> {
    return await this.unlocks.cancel();
  }

  get unlockStatus(): UnlockStatus {
    return this.unlocks.status;
  }

  /** Yields the unlock's status now and whenever it changes, until it has ended. */
  watchUnlock(signal: AbortSignal): AsyncGenerator<UnlockStatus, void, undefined> {
    return this.unlocks.watch(signal);
  }

  /** For the end of the process: ends the unlock. When `deadline` aborts, even what can't be taken back is broken off. */
  async stop(deadline: AbortSignal): Promise<void> {
    await this.unlocks.stop(deadline);
  }

  /** Waits for what is in flight. For the end of the process. */
  async close(): Promise<void> {
    await this.#inFlight.settled();
    this.#closing.abort();
    await this.#working;
    await this.#chunkPool[Symbol.asyncDispose]();
  }
}
