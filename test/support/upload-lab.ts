import { randomBytes } from 'node:crypto';
import path from 'node:path';
import { sha256 } from '../../lab/sha256.ts';
import { WorkMemory } from '../../src/files/work-memory.ts';
import { KeyedReadWriteLock } from '../../src/async/keyed-read-write-lock.ts';
import type { ObjectVersion, Precondition, SmallObject } from '../../src/cdn/s3-cdn-manager.ts';
import type { S3Upload, SentPart, UploadStart, UploadTarget } from '../../src/cdn/s3-upload.ts';
import { LoaderError } from '../../src/errors.ts';
import type { Logger } from '../../src/log/logger.ts';
import { ResourceManifests, type ResourceManifestsOptions } from '../../src/resources/resource-manifests.ts';
import { RevisionMemory } from '../../src/resources/revision-memory.ts';
import { UploadJournal } from '../../src/resources/upload-journal.ts';
import { UploadService, type UploadItem, type UploadServiceOptions } from '../../src/resources/upload-service.ts';
import { decryptBuffer, encryptBuffer } from '../../src/security/envelope-cipher.ts';
import type { ApiSession } from '../../src/upstream/api-session.ts';
import { CacheFolder } from './cache-folder.ts';

export const KEY = randomBytes(32);

/** An S3 upload without a network. */
export class FakeUpload implements Pick<S3Upload, 'abort' | 'complete' | 'parts' | 'sendPart' | 'target'> {
  readonly place: string;
  readonly target: UploadTarget;
  readonly smallSha256: string;
  readonly bodies = new Map<number, Buffer>();
  state: 'open' | 'completed' | 'aborted' = 'open';
  /** Called before a part is taken. */
  beforePart: (number: number) => Promise<void> = () => Promise.resolve();
  beforeComplete: () => Promise<void> = () => Promise.resolve();
  /** Called when the object stands and before the answer. */
  afterComplete: () => Promise<void> = () => Promise.resolve();
  beforeAbort: () => Promise<void> = () => Promise.resolve();
  readonly #cdn: FakeUploadCdn;

  constructor(place: string, smallSha256: string, cdn: FakeUploadCdn) {
    this.place = place;
    this.target = { bucket: 'b', key: place, uploadId: `${place} ${smallSha256}` };
    this.smallSha256 = smallSha256;
    this.#cdn = cdn;
  }

  get parts(): SentPart[] {
    return [...this.bodies.keys()].toSorted((a, b) => a - b).map((number) => ({ number, etag: `"${number}"` }));
  }

  async sendPart(number: number, bytes: Buffer): Promise<void> {
    await this.beforePart(number);
    if (this.state !== 'open') throw new Error(`part ${number} came when the upload was ${this.state}`);
    this.bodies.set(number, Buffer.from(bytes));
  }

  async complete(): Promise<void> {
    await this.beforeComplete();
    if (this.state !== 'open') throw new LoaderError('cdn_error', 'The CDN has no such upload.');
    this.state = 'completed';
    const version = makeVersion({
      etag: `"${this.smallSha256}"`,
      smallSha256: this.smallSha256,
      length: this.content.length,
    });
    this.#cdn.objects.set(this.place, version);
    await this.afterComplete();
  }

  async abort(): Promise<'aborted' | 'gone'> {
    await this.beforeAbort();
    if (this.state !== 'open') return 'gone';
    this.state = 'aborted';
    return 'aborted';
  }

  get content(): Buffer {
    const inOrder = [...this.bodies].toSorted(([a], [b]) => a - b);
    return Buffer.concat(inOrder.map(([, bytes]) => bytes));
  }
}

/** A CDN of such uploads, and of the objects that became of them. */
export class FakeUploadCdn {
  readonly uploads: FakeUpload[] = [];
  readonly objects = new Map<string, ObjectVersion>();
  readonly manifests = new Map<string, SmallObject>();
  /** Called before a manifest is read or stored. */
  beforeManifest: (method: 'get' | 'put') => Promise<void> = () => Promise.resolve();
  /** The parts that uploads of an earlier process were resumed with. */
  readonly resumed: (readonly SentPart[])[] = [];
  /** The places at which empty uploads were to be removed. */
  readonly emptied: string[] = [];
  onStart: (upload: FakeUpload) => void = () => undefined;
  /** Called when an upload is asked for; it may say that the answer was lost, and the request repeated. */
  onAsk: (options: UploadStart) => void = () => undefined;
  beforeLook: () => Promise<void> = () => Promise.resolve();

  startUpload(folder: string, fileName: string, smallSha256: string, options: UploadStart): Promise<FakeUpload> {
    this.onAsk(options);
    const upload = new FakeUpload(`${folder}/${fileName}`, smallSha256, this);
    this.onStart(upload);
    this.uploads.push(upload);
    return Promise.resolve(upload);
  }

  resumeUpload(target: UploadTarget, parts: readonly SentPart[]): FakeUpload {
    this.resumed.push(parts);
    const upload = this.uploads.find((present) => present.target.uploadId === target.uploadId);
    return upload ?? new FakeUpload(target.key, 'gone', this);
  }

  async lookAt(folder: string, fileName: string): Promise<ObjectVersion | undefined> {
    await this.beforeLook();
    return this.objects.get(`${folder}/${fileName}`);
  }

  async getSmallObject(folder: string, fileName: string): Promise<SmallObject | undefined> {
    await this.beforeManifest('get');
    return this.manifests.get(`${folder}/${fileName}`);
  }

  async putSmallObject(
    folder: string,
    fileName: string,
    bytes: Buffer,
    precondition: Precondition,
  ): Promise<'refused' | 'stored'> {
    await this.beforeManifest('put');
    const place = `${folder}/${fileName}`;
    const present = this.manifests.get(place);
    const wanted = precondition === 'absent' ? undefined : precondition.etag;
    if (present?.etag !== wanted) return 'refused';
    this.manifests.set(place, { bytes, etag: `"${sha256(bytes)}"` });
    return 'stored';
  }

  removeEmptyUploads(folder: string, fileName: string): Promise<void> {
    this.emptied.push(`${folder}/${fileName}`);
    return Promise.resolve();
  }
}

/** A Resource API that has files in memory. */
export class FakeFiles implements Pick<ApiSession, 'decrypt' | 'encrypt' | 'fetchResource' | 'storeResource'> {
  readonly files = new Map<string, Buffer>();
  /** Another user has another one. */
  aesKey = randomBytes(32);
  beforeFetch: () => Promise<void> = () => Promise.resolve();
  /** Called before a file is stored. */
  beforeStore: (name: string, content: Buffer) => Promise<void> = () => Promise.resolve();

  async fetchResource(folder: string, fileName: string): Promise<Buffer> {
    await this.beforeFetch();
    const file = this.files.get(`${folder}/${fileName}`);
    if (file !== undefined) return file;
    throw new LoaderError('resource_not_in_api', 'There is none.');
  }

  encrypt(content: Buffer): Buffer {
    return encryptBuffer(content, this.aesKey);
  }

  decrypt(envelope: Buffer): Buffer {
    return decryptBuffer(envelope, this.aesKey);
  }

  async storeResource(folder: string, fileName: string, content: Buffer): Promise<void> {
    const name = `${folder}/${fileName}`;
    await this.beforeStore(name, content);
    this.files.set(name, content);
  }
}

/** Uploads with a real cache in a folder, and an upstream in memory. */
export class UploadLab implements AsyncDisposable {
  readonly folder: CacheFolder;
  readonly cdn = new FakeUploadCdn();
  readonly api = new FakeFiles();
  readonly session = { api: this.api, cdn: this.cdn, resourceAesKey: () => KEY };
  readonly journal: UploadJournal;
  readonly memory = new WorkMemory(64 * 1024 * 1024);
  readonly manifests: ResourceManifests;
  readonly uploads: UploadService;

  private constructor(folder: CacheFolder) {
    this.folder = folder;
    this.journal = new UploadJournal(path.join(folder.base, 'state'), folder.logger);
    this.manifests = testManifests(path.join(folder.base, 'state'), folder.logger);
    this.uploads = this.#service(this.journal);
  }

  /** The uploads of another Loader, to the same upstream. */
  get others(): UploadService {
    return this.#service(new UploadJournal(path.join(this.folder.base, 'other-state'), this.folder.logger));
  }

  /** Uploads that may be left standing: they have no file open. */
  get mortal(): UploadService {
    const noDraft = () => Promise.reject(new LoaderError('cache_unusable', 'There is no disk.'));
    const { cache } = this.folder;
    return this.#service(this.journal, {
      createDraft: noDraft,
      publish: noDraft,
      remove: (part) => cache.remove(part),
    });
  }

  #service(journal: UploadJournal, cache: UploadServiceOptions['cache'] = this.folder.cache): UploadService {
    const { logger } = this.folder;
    const upstream = { session: () => Promise.resolve(this.session) };
    const publicationLocks = new KeyedReadWriteLock();
    const { manifests, memory } = this;
    return new UploadService({ upstream, cache, journal, manifests, memory, publicationLocks, logger });
  }

  static async create(): Promise<UploadLab> {
    return new UploadLab(await CacheFolder.create());
  }

  /** Fails when a file stays open. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.folder.remove();
  }
}

/** What a device with no keys of manifests makes of them. */
export function testManifests(
  stateDir: string,
  logger: Logger,
  options: Partial<ResourceManifestsOptions> = {},
): ResourceManifests {
  const revisions = new RevisionMemory(stateDir, logger);
  return new ResourceManifests({ signingKey: undefined, publicKeys: [], isRequired: false, revisions, ...options });
}

/** The items of an upload whose folder comes before or after its file. */
export async function* uploadItems(
  content: Buffer,
  folder: { readonly before?: string; readonly after?: string } = {},
): AsyncGenerator<UploadItem, void, undefined> {
  await Promise.resolve();
  if (folder.before !== undefined) yield { kind: 'folder', folder: folder.before };
  yield { kind: 'data', chunks: inChunks(content) };
  if (folder.after !== undefined) yield { kind: 'folder', folder: folder.after };
}

export async function* inChunks(content: Buffer): AsyncGenerator<Buffer, void, undefined> {
  for (let start = 0; start < content.length; start += 500_000) {
    await Promise.resolve();
    yield content.subarray(start, start + 500_000);
  }
}

/** An object as a HEAD shows it. */
export function makeVersion(fields: Partial<ObjectVersion>): ObjectVersion {
  const none = { etag: undefined, smallSha256: undefined, modifiedMs: undefined, versionId: undefined };
  return { ...none, length: 1, hasManifest: false, ...fields };
}
