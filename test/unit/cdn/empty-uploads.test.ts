import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, it } from 'node:test';
import { S3CdnManager } from '../../../src/cdn/s3-cdn-manager.ts';
import { TestLinks } from '../../support/test-links.ts';

const KEY = 'models/m.big';
const STARTED_AT_MS = Date.parse('2026-01-01T12:00:00Z');
const MINUTE_MS = 60_000;

interface PendingUpload {
  readonly key: string;
  readonly id: string;
  readonly initiatedAtMs: number;
  readonly parts: number;
}

/** An S3 server that has begun uploads, and lists two in a page. */
class PendingUploads {
  readonly uploads: PendingUpload[] = [];
  readonly aborted: string[] = [];
  lists = 0;
  status = 200;
  readonly #links = new TestLinks();
  readonly #server = createServer((request, response) => this.#answer(request, response));

  async start(): Promise<S3CdnManager> {
    await once(this.#server.listen(0, '127.0.0.1'), 'listening');
    const keys = { accessKeyId: 'UP', secretAccessKey: 'secret' };
    const host = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    return new S3CdnManager(
      { host, region: 'none', bucket: 'b', downloader: keys, uploader: keys, resourceKey: undefined },
      this.#links.cdn(2_000),
    );
  }

  async stop(): Promise<void> {
    await this.#links[Symbol.asyncDispose]();
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { searchParams } = new URL(request.url ?? '', 'http://cdn');
    const id = searchParams.get('uploadId');
    response.statusCode = this.status;
    if (request.method === 'DELETE') {
      this.aborted.push(id ?? '');
      return void response.writeHead(204).end();
    }
    if (id === null) return void response.end(this.#list(Number(searchParams.get('upload-id-marker') ?? 0)));
    const parts = this.uploads.find((upload) => upload.id === id)?.parts ?? 0;
    const part = '<Part><PartNumber>1</PartNumber><ETag>"1"</ETag><Size>1</Size></Part>';
    response.end(`<ListPartsResult>${parts > 0 ? part : ''}</ListPartsResult>`);
  }

  #list(start: number): string {
    this.lists++;
    const page = this.uploads
      .slice(start, start + 2)
      .map(
        ({ key, id, initiatedAtMs }) =>
          `<Upload><Key>${key}</Key><UploadId>${id}</UploadId>` +
          `<Initiated>${new Date(initiatedAtMs).toISOString()}</Initiated></Upload>`,
      );
    const isTruncated = start + 2 < this.uploads.length;
    const next = `<NextKeyMarker>${KEY}</NextKeyMarker><NextUploadIdMarker>${start + 2}</NextUploadIdMarker>`;
    return (
      `<ListMultipartUploadsResult>${page.join('')}<IsTruncated>${isTruncated}</IsTruncated>` +
      `${isTruncated ? next : ''}</ListMultipartUploadsResult>`
    );
  }
}

describe('the removal of the empty uploads of an object', () => {
  const closing: (() => unknown)[] = [];
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
  });

  async function begin(...uploads: Partial<PendingUpload>[]) {
    const server = new PendingUploads();
    for (const [index, upload] of uploads.entries()) {
      server.uploads.push({ key: KEY, id: `upload-${index}`, initiatedAtMs: STARTED_AT_MS, parts: 0, ...upload });
    }
    const cdn = await server.start();
    closing.push(() => server.stop());
    return { server, remove: async () => await cdn.removeEmptyUploads('models', 'm.big', STARTED_AT_MS) };
  }

  it('takes those of its key that began around the time and have no part', async () => {
    const { server, remove } = await begin(
      { id: 'ours' },
      { id: 'of a clock that is behind', initiatedAtMs: STARTED_AT_MS - 10 * MINUTE_MS },
      { id: 'of a key that begins the same', key: `${KEY}ger` },
      { id: 'with a part', parts: 1 },
      { id: 'earlier', initiatedAtMs: STARTED_AT_MS - 20 * MINUTE_MS },
      { id: 'later', initiatedAtMs: STARTED_AT_MS + 20 * MINUTE_MS },
      { id: 'of the last page' },
    );
    await remove();
    assert.deepEqual(server.aborted, ['ours', 'of a clock that is behind', 'of the last page']);
    assert.equal(server.lists, 4);
  });

  it('reads ten pages at the most', async () => {
    const { server, remove } = await begin(...Array.from({ length: 30 }, () => ({ key: 'another' })));
    await remove();
    assert.equal(server.lists, 10);
  });

  it('fails with a code of the CDN', async () => {
    const { server, remove } = await begin({});
    server.status = 403;
    await assert.rejects(remove(), { code: 'cdn_foreign_answer' });
    assert.deepEqual(server.aborted, []);
  });
});
