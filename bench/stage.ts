import { createReadStream, createWriteStream } from 'node:fs';
import { access, mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { CopyObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { Agent } from 'undici';
import { DEMO_BUCKET, DEMO_USER, Origin } from '../lab/upstream/origin.ts';
import { Upstream } from '../src/upstream/upstream.ts';
import { ResourceApi } from '../src/upstream/resource-api.ts';
import { DEFAULT_KEY_TEMPLATES } from '../src/config/variables.ts';
import { HardwareFingerprint } from '../src/hardware/hardware-fingerprint.ts';
import { S3CdnManager } from '../src/cdn/s3-cdn-manager.ts';
import { SecurityKeys } from '../src/security/security-keys.ts';
import { createLogger } from '../src/logger.ts';
import { SERVICES_FOLDER, startRgw, stopRgw, type S3Service } from '../lab/services/services.ts';
import { LoaderUnderTest } from './loader-under-test.ts';
import { writeRandomFile } from './random-file.ts';
import { UnlockStage } from './unlock-stage.ts';
import { BLOCK_LENGTH } from '../src/security/envelope.ts';
import type { Session } from '../src/upstream/session.ts';

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

export interface FreshLoaderOptions {
  /** What is run in the place of the Loader's own main file. */
  readonly main?: string;
  readonly isLoggedIn?: boolean;
}

const RGW_NAME = 'bench/rgw';
const HARDWARE = 'bench-hardware';
/** Tasks want one. */
const API_KEY = 'bench-api-key';
const PUBLISH_TIMEOUT_MS = 60_000;
const MODELS = 'models';

/**
 * All that stands around the Loader: real S3 server, Resource API, resources. What is written lies in one folder, which
 * `stop` removes.
 */
export class Stage {
  readonly folder = path.join(SERVICES_FOLDER, 'bench');
  readonly bucket = DEMO_BUCKET;
  readonly s3: S3Service;
  readonly signal: AbortSignal;
  readonly cacheFolder = path.join(this.folder, 'cache');
  readonly stateFolder = path.join(this.folder, 'state');
  readonly #origin: Origin;
  readonly #s3Client: S3Client;
  readonly #session: Session;
  readonly #closeClients: () => Promise<void>;
  readonly #resources = new Map<number, BenchResource>();
  readonly #ciphertexts = new Map<string, Ciphertext>();
  #loader: LoaderUnderTest | undefined;
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
  }

  static async start(signal: AbortSignal): Promise<Stage> {
    await Stage.clear(); // What a killed bench left behind.
    const folder = path.join(SERVICES_FOLDER, 'bench');
    await mkdir(folder, { recursive: true });
    const s3 = await startRgw(RGW_NAME);
    signal.throwIfAborted();
    const origin = await Origin.start({ folder: path.join(folder, 'origin'), s3 });
    const dispatcher = new Agent();
    const upstream = new Upstream({
      api: new ResourceApi({ baseUrl: origin.api.url, dispatcher, timeoutMs: 30_000 }),
      fingerprint: new HardwareFingerprint(HARDWARE),
      keys: new SecurityKeys({
        templates: DEFAULT_KEY_TEMPLATES,
        resourceSecret: undefined,
      }),
      tokenKeys: { publicKeyPem: undefined, secret: undefined },
      openCdn: (config) => new S3CdnManager(config, { stallTimeoutMs: 30_000 }),
      logger: createLogger({ level: 'error', file: undefined }),
    });
    await upstream.login(DEMO_USER.email, DEMO_USER.password, signal);
    const s3Client = new S3Client({
      endpoint: s3.endpoint,
      region: 'us-east-1',
      credentials: { accessKeyId: s3.accessKey, secretAccessKey: s3.accessSecret },
      forcePathStyle: true,
    });
    const closeClients = async () => {
      upstream.close();
      s3Client.destroy();
      await dispatcher.destroy();
    };
    return new Stage({ s3, signal, origin, s3Client, session: upstream.currentSession(), closeClients });
  }

  /** Stops the servers of any bench and removes all that it wrote. */
  static async clear(): Promise<void> {
    await stopRgw(RGW_NAME).catch(() => undefined); // It may never have been started.
    await UnlockStage.clear();
    await rm(path.join(SERVICES_FOLDER, 'bench'), { recursive: true, force: true });
  }

  /** The Loader that runs, logged in; started when there is none. */
  async loader(): Promise<LoaderUnderTest> {
    return this.#loader ?? (await this.freshLoader());
  }

  /** A new process in the place of the one that ran, logged in unless told otherwise. */
  async freshLoader({ main, isLoggedIn = true }: FreshLoaderOptions = {}): Promise<LoaderUnderTest> {
    await this.stopLoader();
    this.#loader = await LoaderUnderTest.start({
      ...(main === undefined ? {} : { main }),
      env: {
        RESOURCE_API_URL: this.#origin.api.url,
        MODEL_CACHE_DIR: this.cacheFolder,
        STATE_DIR: this.stateFolder,
        HARDWARE_ID: HARDWARE,
        API_KEY,
      },
      logPath: path.join(this.folder, 'loader.log'),
      signal: this.signal,
    });
    if (isLoggedIn) await this.#loader.login(DEMO_USER.email, DEMO_USER.password);
    return this.#loader;
  }

  async stopLoader(): Promise<void> {
    await this.#loader?.stop();
    this.#loader = undefined;
  }

  /** Stops the Loader and makes the next one know of no task. */
  async clearState(): Promise<void> {
    await this.stopLoader();
    await rm(this.stateFolder, { recursive: true, force: true });
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

  /** The resource of `length` bytes, made and uploaded when it is asked for the first time. */
  async resource(length: number): Promise<BenchResource> {
    const known = this.#resources.get(length);
    if (known !== undefined) return known;
    const name = `bench-${length}.bin`;
    const plaintextPath = path.join(this.folder, name);
    const sha256 = await writeRandomFile(plaintextPath, length, this.signal);
    await (await this.loader()).upload(name, plaintextPath);
    await this.untilCached(name);
    const resource = { name, length, sha256, plaintextPath };
    this.#resources.set(length, resource);
    return resource;
  }

  /** Puts `count` copies of a resource beside it, without the Loader, and answers their names. */
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
    await this.warm(resource);
    const small = await this.#smallPart(resource);
    const filePath = path.join(this.folder, `${resource.name}.cbc`);
    await writeFile(filePath, small.subarray(BLOCK_LENGTH));
    await pipeline(
      createReadStream(this.#bigPath(resource.name)),
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

  /** Makes the next load one from the cache. */
  async warm(resource: BenchResource): Promise<void> {
    await (await this.loader()).load(resource.name, resource.length);
    await this.untilCached(resource.name);
  }

  /** Makes the next load one from the CDN. */
  async clearCache(): Promise<void> {
    await rm(this.cacheFolder, { recursive: true, force: true });
  }

  /**
   * Waits until the copy of a load or an upload is in the cache, with its sums. The client has its answer before: neither
   * the rest may fall into the next measurement, nor come after `clearCache`.
   */
  async untilCached(name: string): Promise<void> {
    for (let waitedMs = 0; waitedMs < PUBLISH_TIMEOUT_MS; waitedMs += 20) {
      const files = [this.#bigPath(name), `${this.#bigPath(name)}.sums`];
      const looks = await Promise.allSettled(files.map((file) => access(file)));
      if (looks.every(({ status }) => status === 'fulfilled')) return;
      await sleep(20, undefined, { signal: this.signal });
    }
    throw new Error(`${name} did not come into the cache within ${PUBLISH_TIMEOUT_MS} ms`);
  }

  async stop(): Promise<void> {
    await this.#unlockStage?.stop();
    await this.stopLoader();
    await this.#closeClients();
    await this.#origin.stop();
  }

  #bigPath(name: string): string {
    return path.join(this.cacheFolder, MODELS, `${name}.big`);
  }

  async #smallPart(resource: BenchResource): Promise<Buffer> {
    return await this.#session.api.fetchResource(MODELS, `${resource.name}.small`, this.signal);
  }
}
