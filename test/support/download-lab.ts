import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import path from 'node:path';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { sha256 } from '../../lab/sha256.ts';
import { WorkMemory } from '../../src/files/work-memory.ts';
import { KeyedReadWriteLock } from '../../src/async/keyed-read-write-lock.ts';
import { NEVER } from '../../src/async/abort.ts';
import { S3CdnManager } from '../../src/cdn/s3-cdn-manager.ts';
import { ChunkPool } from '../../src/resources/chunk-pool.ts';
import { CopyProofs } from '../../src/resources/copy-proofs.ts';
import { DownloadService } from '../../src/resources/download-service.ts';
import { smallPartLength } from '../../src/resources/envelope-parts.ts';
import { SharedTransfers } from '../../src/resources/shared-transfers.ts';
import { encryptBuffer } from '../../src/security/envelope-cipher.ts';
import { CacheFolder } from './cache-folder.ts';
import { TestLinks } from './test-links.ts';
import { testManifests } from './upload-lab.ts';

const MIB = 1024 * 1024;
/** For how long a load waits for an API or a CDN that fails. */
export const LOAD_PATIENCE_MS = 2_000;
export const RESOURCE = { folder: 'models', name: 'm' };
const KEY = randomBytes(32);
/** Three ranges. */
export const PLAINTEXT = randomBytes(17 * MIB + 123);
const ENVELOPE = encryptBuffer(PLAINTEXT, KEY);
export const SMALL = ENVELOPE.subarray(0, smallPartLength(ENVELOPE.length));
export const BIG = ENVELOPE.subarray(SMALL.length);
export const RECORD = { bigLength: BIG.length, smallSha256: sha256(SMALL), isPair: true };

/** The digest of the small part of an earlier version. */
export const EARLIER = 'e'.repeat(64);

/** An ETag that is a digest, as that of S3: another one is that of another version. */
export const FAKE_ETAG = `"${'1'.repeat(32)}"`;

const NO_SUCH_KEY = '<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>';

/** An S3 server of one object. */
export class OneObjectServer {
  /** The ranges of the requests that have a first byte. */
  readonly ranges: string[] = [];
  /** The number of requests for the end of the object. */
  ends = 0;
  etag = FAKE_ETAG;
  /** The small part that the object names; undefined for an object of an older Loader. */
  smallSha256: string | undefined = RECORD.smallSha256;
  /** The number of requests for the object without its bytes. */
  looks = 0;
  /** The manifest beside the object; undefined for none. */
  manifest: Buffer | undefined;
  /** Undefined for none. */
  object: Buffer | undefined = BIG;
  /** Whether it answers 503 to everything. */
  isDown = false;
  /** Called with the bytes of a body that are sent already, of those that have more than 1 MiB. */
  beforeRest: (sent: number) => Promise<void> = () => Promise.resolve();
  readonly #server: Server = createServer((request, response) => {
    void this.#answer(request, response);
  });

  async start(): Promise<string> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async connections(): Promise<number> {
    return await new Promise((resolve, reject) => {
      this.#server.getConnections((error, count) => {
        if (error === null) resolve(count);
        else reject(error);
      });
    });
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  get #version() {
    return { etag: this.etag, ...(this.smallSha256 !== undefined && { 'x-amz-meta-small-sha256': this.smallSha256 }) };
  }

  #head(response: ServerResponse): void {
    this.looks++;
    if (this.object === undefined) response.writeHead(404).end();
    else response.writeHead(200, { ...this.#version, 'content-length': this.object.length }).end();
  }

  #answerManifest(response: ServerResponse): void {
    if (this.manifest === undefined) response.writeHead(404, { 'content-type': 'application/xml' }).end(NO_SUCH_KEY);
    else response.writeHead(200, { 'content-length': this.manifest.length }).end(this.manifest);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (this.isDown) return void response.writeHead(503).end();
    if (request.method === 'HEAD') {
      this.#head(response);
      return;
    }
    if (request.url?.includes('.manifest') === true) {
      this.#answerManifest(response);
      return;
    }
    const { range = '', 'if-match': wanted = this.etag } = request.headers;
    const [, first = '', last = ''] = /^bytes=(\d*)-(\d+)$/.exec(range) ?? [];
    if (first === '') this.ends++;
    else this.ranges.push(`${first}-${last}`);
    if (this.object === undefined) return void response.writeHead(404).end();
    if (wanted !== this.etag) return void response.writeHead(412).end();
    const total = this.object.length;
    const [start, end] = first === '' ? [Math.max(0, total - Number(last)), total] : [Number(first), Number(last) + 1];
    response.writeHead(206, {
      ...this.#version,
      'content-range': `bytes ${start}-${end - 1}/${total}`,
      'content-length': end - start,
    });
    const sent = Math.min(end - start, MIB);
    response.write(this.object.subarray(start, start + sent));
    if (sent < end - start) await this.beforeRest(sent);
    response.end(this.object.subarray(start + sent, end));
  }
}

/** A Resource API that has one small part. */
export class OneSmallPart {
  small = SMALL;
  /** The number of fetches. */
  fetches = 0;

  fetchResource(): Promise<Buffer> {
    this.fetches++;
    return Promise.resolve(this.small);
  }

  fetchKeyFragment(): Promise<never> {
    return Promise.reject(new Error('a load needs no key fragment'));
  }

  storeResource(): Promise<never> {
    return Promise.reject(new Error('a load stores nothing'));
  }

  encrypt(): never {
    throw new Error('a load encrypts no secret');
  }

  decrypt(): never {
    throw new Error('a load decrypts no secret');
  }
}

/** Downloads of one resource, with a cache in a folder and an upstream that knows nothing else. */
export class DownloadLab implements AsyncDisposable {
  readonly folder: CacheFolder;
  readonly server: OneObjectServer;
  readonly cdn: S3CdnManager;
  readonly api = new OneSmallPart();
  readonly memory = new WorkMemory(16 * MIB);
  readonly pool = new ChunkPool({ threads: 1 });
  readonly publicationLocks = new KeyedReadWriteLock();
  readonly downloads: DownloadService;
  readonly #links = new TestLinks();
  key = KEY;

  private constructor(folder: CacheFolder, server: OneObjectServer, host: string) {
    this.folder = folder;
    this.server = server;
    const keys = { accessKeyId: 'none', secretAccessKey: 'none' };
    this.cdn = new S3CdnManager(
      { host, region: 'none', bucket: 'b', downloader: keys, uploader: keys, resourceKey: undefined },
      this.#links.cdn(2000),
    );
    const { cache, logger } = folder;
    this.downloads = new DownloadService({
      upstream: {
        session: () => Promise.resolve({ api: this.api, cdn: this.cdn, resourceAesKey: () => this.key }),
      },
      cache,
      proofs: new CopyProofs({ cache, logger }),
      transfers: new SharedTransfers({ cache, memory: this.memory, pool: this.pool, logger }),
      pool: this.pool,
      manifests: testManifests(path.join(folder.base, 'state'), logger),
      memory: this.memory,
      publicationLocks: this.publicationLocks,
      patience: { limitMs: LOAD_PATIENCE_MS, setting: 'STALL_TIMEOUT_MS' },
      logger,
    });
  }

  static async create(): Promise<DownloadLab> {
    const server = new OneObjectServer();
    return new DownloadLab(await CacheFolder.create(), server, await server.start());
  }

  /** Loads the resource whole, and closes it. */
  async load(): Promise<boolean> {
    await using opened = await this.downloads.open(RESOURCE, NEVER);
    return Buffer.concat(await Array.fromAsync(opened.read())).equals(PLAINTEXT);
  }

  /** Whether the copy may be evicted, in which case it is. */
  async isRemovable(): Promise<boolean> {
    return (await this.folder.cache.removeUnlessHeld(await this.folder.entry('m.big'))) === 'removed';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#links[Symbol.asyncDispose]();
    await this.pool[Symbol.asyncDispose]();
    await this.server.stop();
    await this.folder.remove();
  }
}
