import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { CopyObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { DEMO_BUCKET, DEMO_USER, Origin } from '../lab/upstream/origin.ts';
import { Upstream } from '../src/upstream/upstream.ts';
import { DEFAULT_KEY_TEMPLATES } from '../src/config/variables.ts';
import { S3CdnManager } from '../src/cdn/s3-cdn-manager.ts';
import { SecurityKeys } from '../src/security/security-keys.ts';
import { KnownSecrets } from '../src/log/known-secrets.ts';
import { createLogger } from '../src/log/logger.ts';
import { Dispatchers } from '../src/net/dispatchers.ts';
import { ServerClock } from '../src/net/server-clock.ts';
import { SERVICES_FOLDER, startRgw, stopRgw, type S3Service } from '../lab/services/services.ts';
import type { LinkShape } from '../lab/links/link-shape.ts';
import { LinkStage } from './link-stage.ts';
import { LoaderPlace, MODELS } from './loader-place.ts';
import { writeRandomFile } from './random-file.ts';
import { UnlockStage } from './unlock-stage.ts';
import { BLOCK_LENGTH } from '../src/security/envelope.ts';
import type { Session } from '../src/upstream/upstream.ts';

/** A resource that was uploaded through the Loader. */
export interface BenchResource {
  readonly name: string;
  /** Bytes of plaintext. */
  readonly length: number;
  readonly sha256: string;
  readonly plaintextPath: string;
}

/** The bytes of a resource's envelope after the IV, for openssl. */
export interface Ciphertext {
  readonly path: string;
  readonly keyHex: string;
  readonly ivHex: string;
}

const RGW_NAME = 'bench/rgw';
const HARDWARE = 'bench-hardware';
/** Tasks want one. */
const API_KEY = 'bench-api-key';

/**
 * All that stands around the Loader: real S3 server, Resource API, resources. What is written lies in one folder, which
 * `stop` removes.
 */
export class Stage {
  readonly folder = path.join(SERVICES_FOLDER, 'bench');
  readonly bucket = DEMO_BUCKET;
  readonly s3: S3Service;
  readonly signal: AbortSignal;
  /** That of the Loader that is measured beside its peers. */
  readonly place: LoaderPlace;
  readonly #origin: Origin;
  readonly #s3Client: S3Client;
  readonly #session: Session;
  readonly #closeClients: () => Promise<void>;
  readonly #resources = new Map<number, BenchResource>();
  readonly #ciphertexts = new Map<string, Ciphertext>();
  #unlockStage: UnlockStage | undefined;

  private constructor(parts: {
    s3: S3Service;
    signal: AbortSignal;
    origin: Origin;
    s3Client: S3Client;
    session: Session;
    closeClients: () => Promise<void>;
  }) {
    this.s3 = parts.s3;
    this.signal = parts.signal;
    this.#origin = parts.origin;
    this.#s3Client = parts.s3Client;
    this.#session = parts.session;
    this.#closeClients = parts.closeClients;
    this.place = new LoaderPlace({ folder: this.folder, env: this.#loaderEnv, signal: this.signal });
  }

  static async start(signal: AbortSignal): Promise<Stage> {
    await Stage.clear(); // What a killed bench left behind.
    const folder = path.join(SERVICES_FOLDER, 'bench');
    await mkdir(folder, { recursive: true });
    const s3 = await startRgw(RGW_NAME);
    signal.throwIfAborted();
    const origin = await Origin.start({ folder: path.join(folder, 'origin'), s3 });
    const dispatchers = new Dispatchers();
    const createLink = () => dispatchers.create({ connectTimeoutMs: 30_000, connections: 32 });
    const links = { downloads: createLink(), uploads: createLink() };
    const clock = new ServerClock({ onCorrection: () => undefined });
    const patience = { limitMs: 30_000, setting: 'STALL_TIMEOUT_MS' };
    const upstream = new Upstream({
      api: { baseUrl: origin.api.url, dispatcher: createLink(), timeoutMs: 30_000, patience, clock },
      fingerprint: { hardwareString: () => Promise.resolve(HARDWARE), accept: () => Promise.resolve() },
      keys: new SecurityKeys({
        templates: DEFAULT_KEY_TEMPLATES,
        resourceSecret: undefined,
      }),
      tokenKeys: { publicKeyPem: undefined, secret: undefined },
      loadCdn: () => Promise.resolve((config) => new S3CdnManager(config, { patience, links, clock })),
      secrets: new KnownSecrets(),
      logger: createLogger({ level: 'error' }),
    });
    await upstream.login(DEMO_USER.email, DEMO_USER.password, signal);
    const s3Client = new S3Client({
      endpoint: s3.endpoint,
      region: 'us-east-1',
      credentials: { accessKeyId: s3.accessKey, secretAccessKey: s3.accessSecret },
      forcePathStyle: true,
    });
    const closeClients = async () => {
      s3Client.destroy();
      await dispatchers.destroy();
    };
    return new Stage({ s3, signal, origin, s3Client, session: upstream.currentSession(), closeClients });
  }

  /** Stops the servers of any bench and removes all that it wrote. */
  static async clear(): Promise<void> {
    await stopRgw(RGW_NAME).catch(() => undefined); // It may never have been started.
    await UnlockStage.clear();
    await rm(path.join(SERVICES_FOLDER, 'bench'), { recursive: true, force: true });
  }

  /** A further place, for another program. */
  newPlace(name: string, main: string): LoaderPlace {
    return new LoaderPlace({ folder: path.join(this.folder, name), main, env: this.#loaderEnv, signal: this.signal });
  }

  /** What an unlock needs, started when it is asked for the first time. Needs root. */
  async unlockStage(): Promise<UnlockStage> {
    this.#unlockStage ??= await UnlockStage.start({
      folder: path.join(this.folder, 'unlock'),
      s3: this.s3,
      hardware: HARDWARE,
      signal: this.signal,
    });
    return this.#unlockStage;
  }

  /** A Loader whose upstream is behind TLS and a link. Must be stopped before another Loader logs in. */
  async linkStage(shape: LinkShape): Promise<LinkStage> {
    const newPlace = (folder: string, env: Readonly<Record<string, string>>) =>
      new LoaderPlace({ folder, env: { ...this.#loaderEnv, ...env }, signal: this.signal });
    return await LinkStage.start({ shape, folder: path.join(this.folder, 'link'), origin: this.#origin, newPlace });
  }

  /** The resource of `length` bytes, made and uploaded when it is asked for the first time. */
  async resource(length: number): Promise<BenchResource> {
    const known = this.#resources.get(length);
    if (known !== undefined) return known;
    const name = `bench-${length}.bin`;
    const plaintextPath = path.join(this.folder, name);
    const sha256 = await writeRandomFile(plaintextPath, length, this.signal);
    await (await this.place.loader()).upload(name, plaintextPath);
    await this.place.untilCached(name);
    const resource = { name, length, sha256, plaintextPath };
    this.#resources.set(length, resource);
    return resource;
  }

  /** Puts `count` copies of a resource beside it, without the Loader, and returns their names. */
  async copies(resource: BenchResource, count: number): Promise<string[]> {
    const small = await this.#smallPart(resource);
    const names = Array.from({ length: count }, (_, index) => `copy-${index}-of-${resource.name}`);
    for (const name of names) {
      await this.#s3Client.send(
        new CopyObjectCommand({
          Bucket: this.bucket,
          Key: `${MODELS}/${name}.big`,
          CopySource: `${this.bucket}/${MODELS}/${resource.name}.big`,
        }),
      );
      await this.#origin.api.store(MODELS, `${name}.small`, small);
    }
    return names;
  }

  /** The cached envelope of a resource as a file that openssl can read: joined, without its IV. */
  async ciphertext(resource: BenchResource): Promise<Ciphertext> {
    const known = this.#ciphertexts.get(resource.name);
    if (known !== undefined) return known;
    await this.place.warm(resource);
    const small = await this.#smallPart(resource);
    const filePath = path.join(this.folder, `${resource.name}.cbc`);
    await writeFile(filePath, small.subarray(BLOCK_LENGTH));
    await pipeline(
      createReadStream(this.place.bigPath(resource.name)),
      createWriteStream(filePath, { flags: 'a', flush: true }),
      { signal: this.signal },
    );
    const ciphertext = {
      path: filePath,
      keyHex: this.#session.resourceAesKey().toString('hex'),
      ivHex: small.subarray(0, BLOCK_LENGTH).toString('hex'),
    };
    this.#ciphertexts.set(resource.name, ciphertext);
    return ciphertext;
  }

  async stop(): Promise<void> {
    await this.#unlockStage?.stop();
    await this.place.stopLoader();
    await this.#closeClients();
    await this.#origin.stop();
  }

  get #loaderEnv(): Readonly<Record<string, string>> {
    return { RESOURCE_API_URL: this.#origin.api.url, HARDWARE_ID: HARDWARE, API_KEY };
  }

  async #smallPart(resource: BenchResource): Promise<Buffer> {
    return await this.#session.api.fetchResource(MODELS, `${resource.name}.small`, this.signal);
  }
}
