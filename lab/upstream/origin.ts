import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { dump } from 'js-yaml';
import { DEFAULT_KEY_TEMPLATES } from '../../src/config/variables.ts';
import { ResourceApiServer, type OriginUser } from './resource-api-server.ts';
import { startS3Store, type S3Store } from './s3-store.ts';

export interface OriginOptions {
  /** Where the Resource API keeps its files. */
  readonly folder: string;
  /** An S3 server to use in place of the one in this process. */
  readonly s3?: { readonly endpoint: string; readonly accessKey: string; readonly accessSecret: string };
  /** The address that the Loader gets in the place of `s3.endpoint`, such as that of a proxy with faults. */
  readonly s3Host?: string;
  readonly bucket?: string;
  readonly users?: readonly OriginUser[];
  readonly tokenLifetimeSeconds?: number;
}

export const DEMO_USER: OriginUser = { email: 'operator@example.com', password: 'demo-password', role: 'Operator' };
export const DEMO_BUCKET = 'azaion-models';

/** A stand-in for all that the Loader has upstream: Resource API, S3 store, and the cdn.yaml that ties the two. */
export class Origin {
  readonly api: ResourceApiServer;
  readonly s3Endpoint: string;
  /** The secret of the fleet, as cdn.yaml names it. */
  readonly resourceKey: string;
  readonly jwtSecret: string;
  readonly keyFragment: Buffer;
  readonly #ownStore: S3Store | undefined;
  #cdnConfig: Readonly<Record<string, unknown>> = {};

  private constructor(parts: {
    api: ResourceApiServer;
    s3Endpoint: string;
    resourceKey: string;
    jwtSecret: string;
    keyFragment: Buffer;
    ownStore: S3Store | undefined;
  }) {
    this.api = parts.api;
    this.s3Endpoint = parts.s3Endpoint;
    this.resourceKey = parts.resourceKey;
    this.jwtSecret = parts.jwtSecret;
    this.keyFragment = parts.keyFragment;
    this.#ownStore = parts.ownStore;
  }

  static async start(options: OriginOptions): Promise<Origin> {
    const jwtSecret = randomBytes(32).toString('hex');
    const resourceKey = randomBytes(32).toString('hex');
    const keyFragment = randomBytes(64);
    const ownStore = options.s3 === undefined ? await startS3Store() : undefined;
    const { endpoint = '', accessKey = '', accessSecret = '' } = options.s3 ?? ownStore ?? {};
    const bucket = options.bucket ?? DEMO_BUCKET;
    await createBucket(endpoint, bucket, accessKey, accessSecret);
    await mkdir(options.folder, { recursive: true });
    const api = new ResourceApiServer({
      folder: path.resolve(options.folder),
      users: options.users ?? [DEMO_USER],
      jwtSecret,
      tokenLifetimeSeconds: options.tokenLifetimeSeconds ?? 4 * 3600,
      keyTemplates: DEFAULT_KEY_TEMPLATES,
      keyFragment,
    });
    const origin = new Origin({ api, s3Endpoint: endpoint, resourceKey, jwtSecret, keyFragment, ownStore });
    await api.start();
    await origin.publishCdnConfig({
      host: options.s3Host ?? endpoint,
      bucket,
      downloader_access_key: accessKey,
      downloader_access_secret: accessSecret,
      uploader_access_key: accessKey,
      uploader_access_secret: accessSecret,
      resource_key: resourceKey,
    });
    return origin;
  }

  /** The number of requests for objects at this process's S3 store; 0 when another store is used. */
  get s3Downloads(): number {
    return this.#ownStore?.downloads ?? 0;
  }

  /** Makes `config` the cdn.yaml of the next login. */
  async publishCdnConfig(config: Readonly<Record<string, unknown>>): Promise<void> {
    this.#cdnConfig = config;
    await this.api.store('', 'cdn.yaml', Buffer.from(dump(config)));
  }

  /** Lets the next login find the CDN at another address, such as that of a proxy or of the near end of a link. */
  async moveCdn(host: string): Promise<void> {
    await this.publishCdnConfig({ ...this.#cdnConfig, host });
  }

  async stop(): Promise<void> {
    await this.api.stop();
    await this.#ownStore?.stop();
  }
}

async function createBucket(
  endpoint: string,
  bucket: string,
  accessKeyId: string,
  secretAccessKey: string,
): Promise<void> {
  const client = new S3Client({
    endpoint,
    region: 'us-east-1',
    credentials: { accessKeyId, secretAccessKey },
    forcePathStyle: true,
  });
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
  client.destroy();
}
