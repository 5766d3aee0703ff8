import { randomBytes } from 'node:crypto';
import { KeyedReadWriteLock } from '../../src/async/keyed-read-write-lock.ts';
import type { S3Upload } from '../../src/cdn/s3-upload.ts';
import { LoaderError } from '../../src/errors.ts';
import { UploadService, type UploadItem } from '../../src/resources/upload-service.ts';
import type { ApiSession } from '../../src/upstream/api-session.ts';
import { CacheFolder } from './cache-folder.ts';

export const KEY = randomBytes(32);

/** An S3 upload without a network. */
export class FakeUpload implements Pick<S3Upload, 'abort' | 'complete' | 'sendPart'> {
  readonly place: string;
  readonly parts = new Map<number, Buffer>();
  state: 'open' | 'completed' | 'aborted' = 'open';
  /** Called before a part is taken. */
  beforePart: (number: number) => Promise<void> = () => Promise.resolve();
  beforeComplete: () => Promise<void> = () => Promise.resolve();
  beforeAbort: () => Promise<void> = () => Promise.resolve();

  constructor(place: string) {
    this.place = place;
  }

  async sendPart(number: number, bytes: Buffer): Promise<void> {
    await this.beforePart(number);
    if (this.state !== 'open') throw new Error(`part ${number} came when the upload was ${this.state}`);
    this.parts.set(number, Buffer.from(bytes));
  }

  async complete(): Promise<void> {
    await this.beforeComplete();
    this.state = 'completed';
  }

  async abort(): Promise<void> {
    await this.beforeAbort();
    this.state = 'aborted';
  }

  get content(): Buffer {
    const inOrder = [...this.parts].toSorted(([a], [b]) => a - b);
    return Buffer.concat(inOrder.map(([, bytes]) => bytes));
  }
}

/** A CDN that starts such uploads. */
export class FakeUploadCdn {
  readonly uploads: FakeUpload[] = [];
  onStart: (upload: FakeUpload) => void = () => undefined;

  startUpload(folder: string, fileName: string): Promise<FakeUpload> {
    const upload = new FakeUpload(`${folder}/${fileName}`);
    this.onStart(upload);
    this.uploads.push(upload);
    return Promise.resolve(upload);
  }
}

/** A Resource API that has files in memory. */
export class FakeFiles implements Pick<ApiSession, 'fetchResource' | 'storeResource'> {
  readonly files = new Map<string, Buffer>();
  /** Called before a file is stored. */
  beforeStore: (name: string, content: Buffer) => Promise<void> = () => Promise.resolve();

  fetchResource(folder: string, fileName: string): Promise<Buffer> {
    const file = this.files.get(`${folder}/${fileName}`);
    if (file !== undefined) return Promise.resolve(file);
    return Promise.reject(new LoaderError('resource_not_in_api', 'There is none.'));
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
  readonly uploads: UploadService;

  private constructor(folder: CacheFolder) {
    this.folder = folder;
    const { cache, logger } = folder;
    const upstream = { currentSession: () => this.session };
    this.uploads = new UploadService({ upstream, cache, publicationLocks: new KeyedReadWriteLock(), logger });
  }

  static async create(): Promise<UploadLab> {
    return new UploadLab(await CacheFolder.create());
  }

  /** Fails when a file stays open. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.folder.remove();
  }
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
