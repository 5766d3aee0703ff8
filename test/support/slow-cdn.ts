import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

interface PresentObject {
  readonly smallSha256: string;
  readonly bytes: number;
  /** In the order of their numbers. */
  readonly parts: readonly (Buffer | undefined)[];
}

interface PendingUpload {
  readonly smallSha256: string;
  readonly lengths: number[];
  readonly parts: Buffer[];
}

const NO_KEY = '<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>';
/** How long a part is read before the next pause, in bytes. */
const STEP_LENGTH = 64 * 1024;

/**
 * An S3 server that takes each part at a speed of its own, and serves one object under all names that nobody has uploaded.
 * It is here since real servers take parts as fast as they come.
 */
export class SlowCdn implements AsyncDisposable {
  /** Of each part; Infinity for no limit. */
  bytesPerSecond = Infinity;
  /** Keeps the bytes of parts; otherwise their lengths only. */
  keepsParts = true;
  readonly objects = new Map<string, PresentObject>();
  /** What is served under a name that has no object. */
  shared: { readonly smallSha256: string; readonly content: Buffer } | undefined;
  readonly #manifests = new Map<string, Buffer>();
  readonly #uploads = new Map<string, PendingUpload>();
  readonly #server: Server = createServer((request, response) => {
    this.#answer(request, response).catch(() => response.destroy());
  });

  static async start(): Promise<SlowCdn> {
    const cdn = new SlowCdn();
    await once(cdn.#server.listen(0, '127.0.0.1'), 'listening');
    return cdn;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url ?? '', this.url);
    const id = searchParams.get('uploadId') ?? '';
    const upload = this.#uploads.get(id);
    switch (request.method) {
      case 'PUT':
        if (pathname.endsWith('.manifest')) {
          this.#manifests.set(pathname, Buffer.concat(await request.toArray()));
          return void response.writeHead(200, { etag: '"manifest"' }).end();
        }
        if (upload === undefined) return void response.writeHead(404).end();
        await this.#takePart(request, upload, Number(searchParams.get('partNumber')));
        return void response.writeHead(200, { etag: '"part"' }).end();
      case 'POST': {
        await this.#drain(request);
        if (upload === undefined) {
          this.#create(request, response);
          return;
        }
        this.#uploads.delete(id);
        const bytes = upload.lengths.reduce((sum, length) => sum + length, 0);
        this.objects.set(pathname, { smallSha256: upload.smallSha256, bytes, parts: upload.parts });
        return void response.end('<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>');
      }
      case 'DELETE':
        this.#uploads.delete(id);
        return void response.writeHead(204).end();
      case undefined:
      default:
        this.#serve(request, response, pathname);
    }
  }

  #create(request: IncomingMessage, response: ServerResponse): void {
    const id = `upload-${Math.random()}`;
    const smallSha256 = String(request.headers['x-amz-meta-small-sha256']);
    this.#uploads.set(id, { smallSha256, lengths: [], parts: [] });
    response.end(`<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`);
  }

  async #takePart(request: IncomingMessage, upload: PendingUpload, number: number): Promise<void> {
    const chunks: Buffer[] = [];
    let length = 0;
    let due = STEP_LENGTH;
    const startedAt = performance.now();
    for await (const chunk of request as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (this.keepsParts) chunks.push(chunk);
      if (length < due) continue;
      due = length + STEP_LENGTH;
      const aheadMs = (length / this.bytesPerSecond) * 1000 - (performance.now() - startedAt);
      if (aheadMs > 0) await sleep(aheadMs);
    }
    upload.lengths[number - 1] = length;
    upload.parts[number - 1] = Buffer.concat(chunks);
  }

  #serve(request: IncomingMessage, response: ServerResponse, key: string): void {
    if (key.endsWith('.manifest')) {
      const manifest = this.#manifests.get(key);
      if (manifest === undefined)
        return void response.writeHead(404, { 'content-type': 'application/xml' }).end(NO_KEY);
      return void response.writeHead(200, { etag: '"manifest"', 'content-length': manifest.length }).end(manifest);
    }
    const own = this.objects.get(key);
    const shared = this.shared;
    const smallSha256 = own?.smallSha256 ?? shared?.smallSha256;
    const length = own?.bytes ?? shared?.content.length ?? 0;
    if (smallSha256 === undefined) return void response.writeHead(404).end();
    const headers = { etag: '"1"', 'x-amz-meta-small-sha256': smallSha256 };
    if (request.method === 'HEAD') return void response.writeHead(200, { ...headers, 'content-length': length }).end();
    const [, first = '', last = ''] = /^bytes=(\d*)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const start = first === '' ? Math.max(0, length - Number(last)) : Number(first);
    const end = first === '' ? length : Number(last) + 1;
    const content = own === undefined ? (shared?.content ?? Buffer.alloc(0)) : Buffer.concat(own.parts as Buffer[]);
    response.writeHead(206, {
      ...headers,
      'content-range': `bytes ${start}-${end - 1}/${length}`,
      'content-length': end - start,
    });
    response.end(content.subarray(start, end));
  }

  async #drain(request: IncomingMessage): Promise<void> {
    request.resume();
    if (!request.readableEnded) await once(request, 'end');
  }
}
