import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { Origin } from '../../lab/upstream/origin.ts';
import { FaultProxy } from '../../lab/faults/fault-proxy.ts';
import type { CertificateAuthority } from '../../lab/links/certificate-authority.ts';
import type { ShapedLink } from '../../lab/links/shaped-link.ts';
import { bodyOf } from '../../lab/json-answer.ts';
import { eventually } from '../../lab/waiting.ts';
import { noteSecrets, S3 } from '../../lab/test-environment.ts';
import type { S3Service } from '../../lab/services/services.ts';
import { TestLoader } from './test-loader.ts';
import { TaskClient } from '../../lab/task-client.ts';

export interface DeviceOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly uid?: number;
  /** Its S3 server; Ceph unless given. */
  readonly s3?: S3Service;
  /** A link that its Resource API and CDN are behind, with TLS of this authority. */
  readonly over?: {
    readonly link: ShapedLink;
    readonly authority: CertificateAuthority;
    readonly offersHttp2?: boolean;
  };
  /** Another device, whose Resource API, bucket and user this one has too. */
  readonly sharing?: Device;
}

/** An object of the bucket. */
export interface StoredObject {
  readonly bytes: Buffer;
  readonly metadata: Readonly<Record<string, string>>;
  readonly cacheControl: string | undefined;
}

/** Timeouts of the tests' Loaders, in ms: short, so that the tests are, and long enough for a slow machine. */
export const STALL_TIMEOUT_MS = 2500;
export const UPSTREAM_TIMEOUT_MS = 3000;

/**
 * A device with all that it has upstream: Loader process, stand-in Resource API and real S3 server, the latter two
 * behind proxies that can hurt. Everything is its own: bucket, cache folder, passwords.
 */
export class Device {
  readonly s3: S3Service;
  readonly origin: Origin;
  readonly apiProxy: FaultProxy;
  readonly s3Proxy: FaultProxy;
  readonly folder: string;
  readonly email = 'operator@example.com';
  readonly password: string;
  readonly bucket: string;
  loader: TestLoader;
  readonly #env: Readonly<Record<string, string>>;
  readonly #isGuest: boolean;
  readonly #s3Host: string;
  readonly #s3Client: S3Client;

  private constructor(parts: {
    s3: S3Service;
    s3Host: string;
    origin: Origin;
    apiProxy: FaultProxy;
    s3Proxy: FaultProxy;
    folder: string;
    password: string;
    bucket: string;
    loader: TestLoader;
    env: Readonly<Record<string, string>>;
    isGuest: boolean;
  }) {
    this.s3 = parts.s3;
    this.origin = parts.origin;
    this.apiProxy = parts.apiProxy;
    this.s3Proxy = parts.s3Proxy;
    this.folder = parts.folder;
    this.password = parts.password;
    this.bucket = parts.bucket;
    this.loader = parts.loader;
    this.#env = parts.env;
    this.#isGuest = parts.isGuest;
    this.#s3Host = parts.s3Host;
    this.#s3Client = createS3Client(parts.s3);
  }

  static async start(options: DeviceOptions = {}): Promise<Device> {
    const { sharing } = options;
    const s3 = options.s3 ?? sharing?.s3 ?? S3;
    if (s3 === undefined) throw new Error('this test needs the S3 server: it must have the skip option S3_SKIP');
    const folder = await mkdtemp(path.join(tmpdir(), 'loader-test-'));
    const password = sharing?.password ?? `password-${randomBytes(12).toString('hex')}`;
    const bucket = sharing?.bucket ?? `test-${randomUUID()}`;
    const s3Proxy = sharing?.s3Proxy ?? (await FaultProxy.start(s3.endpoint));
    const { over } = options;
    const open = async (url: string) =>
      (await over?.link.open(url, { ...over.authority.issue(), offersHttp2: over.offersHttp2 ?? false })) ?? url;
    const s3Host = await open(s3Proxy.url);
    const origin =
      sharing?.origin ??
      (await Origin.start({
        folder: path.join(folder, 'origin'),
        s3,
        s3Host,
        bucket,
        users: [{ email: 'operator@example.com', password, role: 'Operator' }],
      }));
    noteSecrets(password, origin.resourceKey, origin.jwtSecret, s3.accessSecret, origin.keyFragment.toString('hex'));
    const apiProxy = sharing?.apiProxy ?? (await FaultProxy.start(origin.api.url));
    const caPath = path.join(folder, 'ca.pem');
    if (over !== undefined) await writeFile(caPath, over.authority.certificate);
    const env = {
      RESOURCE_API_URL: await open(apiProxy.url),
      ...(over && { NODE_EXTRA_CA_CERTS: caPath }),
      MODEL_CACHE_DIR: path.join(folder, 'models'),
      STATE_DIR: path.join(folder, 'state'),
      STALL_TIMEOUT_MS: String(STALL_TIMEOUT_MS),
      UPSTREAM_TIMEOUT_MS: String(UPSTREAM_TIMEOUT_MS),
      UPLOAD_SECOND_LOOK_MS: '0',
      ...options.env,
    };
    const loader = await TestLoader.start({ env, ...(options.uid === undefined ? {} : { uid: options.uid }) });
    return new Device({
      s3,
      s3Host,
      origin,
      apiProxy,
      s3Proxy,
      folder,
      password,
      bucket,
      loader,
      env,
      isGuest: sharing !== undefined,
    });
  }

  get cacheFolder(): string {
    return path.join(this.folder, 'models');
  }

  /** Unless the environment names another. */
  get stateFolder(): string {
    return path.join(this.folder, 'state');
  }

  /** For a Loader with an API key. */
  get tasks(): TaskClient {
    return new TaskClient(this.loader);
  }

  /** A cdn.yaml that is good for this device, to be published whole or hurt. */
  get goodCdnConfig(): Record<string, unknown> {
    return {
      host: this.#s3Host,
      bucket: this.bucket,
      downloader_access_key: this.s3.accessKey,
      downloader_access_secret: this.s3.accessSecret,
      uploader_access_key: this.s3.accessKey,
      uploader_access_secret: this.s3.accessSecret,
      resource_key: this.origin.resourceKey,
    };
  }

  /** The cache's copy of a big part. */
  bigPath(name: string, folder = 'models'): string {
    return path.join(this.cacheFolder, folder, `${name}.big`);
  }

  async login(): Promise<void> {
    bodyOf(await this.loader.login(this.email, this.password));
  }

  /** Uploads under `models` and insists. */
  async upload(name: string, content: Uint8Array<ArrayBuffer>, folder?: string): Promise<void> {
    bodyOf(await this.loader.upload(name, content, folder));
    // The Loader looks at both parts once more; a fault that comes next must not meet that.
    await eventually(async () => (await this.journal()).length === 0);
  }

  /** The uploads that have not ended: those under way, and those whose second look is still to come. */
  async journal(): Promise<string[]> {
    return await readdir(path.join(this.stateFolder, 'uploads')).catch(() => []);
  }

  /** Waits until nothing is open or unfinished: a transfer still publishes its file when its callers have gone. */
  async settled(): Promise<void> {
    await eventually(() => this.loader.openFilesUnder(this.folder).length === 0);
    await eventually(async () => (await this.unfinishedFiles()).length === 0);
  }

  /** Makes the next load a cold one. */
  async clearCache(): Promise<void> {
    await this.settled();
    // The sums of a copy are made after the answer.
    await rm(this.cacheFolder, { recursive: true, force: true, maxRetries: 20, retryDelay: 5 });
  }

  /** Names of the unfinished files in the cache. */
  async unfinishedFiles(): Promise<string[]> {
    return await readdir(path.join(this.cacheFolder, '.parts')).catch(() => []);
  }

  /** Keys of the multipart uploads that were neither completed nor aborted. */
  async pendingUploads(): Promise<string[]> {
    const answer = await this.#s3Client.send(new ListMultipartUploadsCommand({ Bucket: this.bucket }));
    return (answer.Uploads ?? []).map((upload) => upload.Key ?? '');
  }

  /** Removes them. */
  async abortUploads(): Promise<void> {
    const answer = await this.#s3Client.send(new ListMultipartUploadsCommand({ Bucket: this.bucket }));
    for (const { Key, UploadId } of answer.Uploads ?? []) {
      await this.#s3Client.send(new AbortMultipartUploadCommand({ Bucket: this.bucket, Key, UploadId }));
    }
  }

  async objects(): Promise<string[]> {
    const answer = await this.#s3Client.send(new ListObjectsV2Command({ Bucket: this.bucket }));
    return (answer.Contents ?? []).map((object) => object.Key ?? '');
  }

  /** The whole object, with its metadata. */
  async readObject(key: string): Promise<StoredObject> {
    const answer = await this.#s3Client.send(new GetObjectCommand({ Bucket: this.bucket, Key: key }));
    const bytes = Buffer.from((await answer.Body?.transformToByteArray()) ?? []);
    return { bytes, metadata: answer.Metadata ?? {}, cacheControl: answer.CacheControl };
  }

  /** Replaces an object, as somebody who may write to the bucket can. */
  async writeObject(key: string, { bytes, metadata = {} }: Partial<StoredObject> & { bytes: Buffer }): Promise<void> {
    const command = new PutObjectCommand({ Bucket: this.bucket, Key: key, Body: bytes, Metadata: { ...metadata } });
    await this.#s3Client.send(command);
  }

  async removeObject(key: string): Promise<void> {
    await this.#s3Client.send(new DeleteObjectCommand({ Bucket: this.bucket, Key: key }));
  }

  async restartLoader(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.loader.stop(signal);
    await this.startLoader();
  }

  /** For a Loader that was stopped. */
  async startLoader(env: Readonly<Record<string, string>> = {}): Promise<void> {
    this.loader = await TestLoader.start({ env: { ...this.#env, ...env } });
  }

  /** For a Loader that was stopped: starts one that is killed after so many ms. */
  async startAndKillLoader(afterMs: number): Promise<void> {
    await TestLoader.startAndKill({ env: this.#env }, afterMs);
  }

  /** No more faults. */
  heal(): void {
    this.apiProxy.reset();
    this.s3Proxy.reset();
  }

  async stop(): Promise<void> {
    await this.loader.stop('SIGKILL');
    if (!this.#isGuest) await Promise.all([this.apiProxy.stop(), this.s3Proxy.stop(), this.origin.stop()]);
    this.#s3Client.destroy();
    await rm(this.folder, { recursive: true, force: true });
  }
}

function createS3Client({ endpoint, accessKey, accessSecret }: S3Service): S3Client {
  return new S3Client({
    endpoint,
    region: 'us-east-1',
    credentials: { accessKeyId: accessKey, secretAccessKey: accessSecret },
    forcePathStyle: true,
  });
}
