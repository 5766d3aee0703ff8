import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  createServer,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type RequestListener,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { sha256 } from '../../../lab/sha256.ts';
import { NEVER } from '../../../src/async/abort.ts';
import { Outage } from '../../../src/async/outage.ts';
import { S3CdnManager } from '../../../src/cdn/s3-cdn-manager.ts';
import { TestLinks } from '../../support/test-links.ts';

const CONTENT = Buffer.from('0123456789');
const ETAG = '"one"';
const PATIENCE = { limitMs: 300, setting: 'STALL_TIMEOUT_MS' };

const closing: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** A CDN that is a real server with `listener`, and a manager of it. */
async function startCdn(listener: RequestListener, bucket?: string, { limitMs } = PATIENCE): Promise<S3CdnManager> {
  const server = createServer(listener);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  closing.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const links = new TestLinks();
  closing.push(() => links[Symbol.asyncDispose]());
  const cdn = new S3CdnManager(
    {
      host: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      region: 'eu-1',
      bucket,
      downloader: { accessKeyId: 'DOWN', secretAccessKey: 'down secret' },
      uploader: { accessKeyId: 'UP', secretAccessKey: 'up secret' },
      resourceKey: 'resource key',
    },
    links.cdn(limitMs),
  );
  return cdn;
}

/** Answers the range of CONTENT that is asked for, as S3 does. */
const serveContent = (
  request: IncomingMessage,
  response: ServerResponse,
  version: OutgoingHttpHeaders = { etag: ETAG },
) => {
  const [, first = '', last = ''] = /^bytes=(\d*)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
  const start = first === '' ? Math.max(0, CONTENT.length - Number(last)) : Number(first);
  const end = first === '' ? CONTENT.length : Number(last) + 1;
  const range = `bytes ${start}-${end - 1}/${CONTENT.length}`;
  response.writeHead(206, { ...version, 'content-range': range, 'content-length': end - start });
  response.end(CONTENT.subarray(start, end));
};

const read = async (cdn: S3CdnManager, start = 0, end = CONTENT.length) => {
  const object = await cdn.openObject('models', 'm.big', 4, NEVER);
  return Buffer.concat(
    await Array.fromAsync(cdn.readRange(object, start, end, { signal: NEVER, outage: new Outage(PATIENCE) })),
  ).toString();
};

describe('the CDN', () => {
  it('sees the keys of the downloader in downloads and those of the uploader in uploads, and no other secret', async () => {
    const seen: string[] = [];
    const cdn = await startCdn((request, response) => {
      const lines = JSON.stringify(request.rawHeaders);
      assert.doesNotMatch(lines + (request.url ?? ''), /secret|resource key/);
      seen.push(`${request.method} ${/Credential=(\w+)/.exec(lines)?.[1]}`);
      if (request.method === 'GET') serveContent(request, response);
      else response.end('<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>');
    });
    await read(cdn);
    await cdn.startUpload('models', 'm.big', 'ab'.repeat(32), { signal: NEVER });
    assert.deepEqual(seen, ['GET DOWN', 'GET DOWN', 'POST UP']);
  });

  it('is asked for a key in the bucket, or for a bucket that is the folder', async () => {
    for (const [bucket, url] of [
      ['all', '/all/models/m.big?x-id=GetObject'],
      [undefined, '/models/m.big?x-id=GetObject'],
    ] as const) {
      let seen: string | undefined;
      const cdn = await startCdn((request, response) => {
        seen = request.url;
        serveContent(request, response);
      }, bucket);
      await cdn.openObject('models', 'm.big', 4, NEVER);
      assert.equal(seen, url);
    }
  });
});

describe('an object', () => {
  it('is found with its length and its end', async () => {
    const cdn = await startCdn(serveContent);
    const { length, tail, etag } = await cdn.openObject('models', 'm.big', 4, NEVER);
    assert.deepEqual([length, tail.toString(), etag], [10, '6789', ETAG]);
    assert.equal((await cdn.openObject('models', 'm.big', 50, NEVER)).tail.toString(), '0123456789');
  });

  it('is read in ranges of the version that was found', async () => {
    const conditions: unknown[] = [];
    const cdn = await startCdn((request, response) => {
      conditions.push(request.headers['if-match']);
      serveContent(request, response);
    });
    assert.equal(await read(cdn, 2, 7), '23456');
    assert.deepEqual(conditions, [undefined, ETAG]);
  });

  it('is read over one connection in ranges one after the other', async () => {
    const ports = new Set<number | undefined>();
    const cdn = await startCdn((request, response) => {
      ports.add(request.socket.remotePort);
      serveContent(request, response);
    });
    for (let count = 0; count < 4; count++) assert.equal(await read(cdn, 2, 7), '23456');
    assert.equal(ports.size, 1);
  });

  for (const [how, breakOff] of [
    ['breaks', (destroy: () => void) => destroy()],
    ['goes silent', () => undefined],
  ] as const) {
    it(`is read on at the next byte when the connection ${how}`, { timeout: 10_000 }, async () => {
      const ranges: unknown[] = [];
      const cdn = await startCdn((request, response) => {
        ranges.push(request.headers.range);
        if (ranges.length !== 2) {
          serveContent(request, response);
          return;
        }
        response.writeHead(206, { etag: ETAG, 'content-range': 'bytes 0-9/10', 'content-length': 10 });
        response.write(CONTENT.subarray(0, 3), () => setTimeout(() => breakOff(() => response.destroy()), 20));
      });
      assert.equal(await read(cdn), '0123456789');
      assert.deepEqual(ranges, ['bytes=-4', 'bytes=0-9', 'bytes=3-9']);
    });
  }

  for (const [what, code, status, headers, body] of [
    ['another version', 'cdn_object_changed', 206, { etag: '"two"', 'content-range': 'bytes 0-9/10' }, CONTENT],
    ['that the version is gone', 'cdn_object_changed', 412, {}, ''],
    ['another length', 'cdn_object_changed', 206, { etag: ETAG, 'content-range': 'bytes 0-9/11' }, CONTENT],
    ['that access is denied', 'cdn_access_denied', 403, {}, '<Error><Code>AccessDenied</Code></Error>'],
    ['another secret', 'cdn_signature_refused', 403, {}, '<Error><Code>SignatureDoesNotMatch</Code></Error>'],
    ['no such bucket', 'cdn_bucket_missing', 404, {}, '<Error><Code>NoSuchBucket</Code></Error>'],
    ['that it is not there', 'resource_not_in_cdn', 404, {}, '<Error><Code>NoSuchKey</Code></Error>'],
  ] as const) {
    it(`fails at once with ${code} when a range is answered with ${what}`, async () => {
      let calls = 0;
      const cdn = await startCdn((request, response) => {
        if (calls++ === 0) serveContent(request, response);
        else response.writeHead(status, headers).end(body);
      });
      await assert.rejects(read(cdn), { code });
      // The version may only have another ETag, so it is asked for once more, without one.
      assert.equal(calls, code === 'cdn_object_changed' ? 3 : 2);
    });
  }

  const PASSING = [
    ['another range', 'cdn_invalid_response', 206, { etag: ETAG, 'content-range': 'bytes 1-9/10' }, CONTENT],
    ['the whole, without a range', 'cdn_invalid_response', 200, { etag: ETAG }, CONTENT],
    ['a part, without its range', 'cdn_invalid_response', 206, { etag: ETAG }, CONTENT],
    ['416', 'cdn_error', 416, {}, '<Error><Code>InvalidRange</Code></Error>'],
    ['429', 'cdn_error', 429, {}, '<Error><Code>TooManyRequests</Code></Error>'],
    ['408', 'cdn_error', 408, {}, ''],
    ['a request that came too slowly', 'cdn_error', 400, {}, '<Error><Code>RequestTimeout</Code></Error>'],
    ['500', 'cdn_error', 500, {}, '<Error><Code>InternalError</Code></Error>'],
    ['503 of a gateway', 'cdn_error', 503, { 'content-type': 'text/html' }, '<html>Try later</html>'],
    ['a time that it does not take', 'clock_wrong', 403, {}, '<Error><Code>RequestTimeTooSkewed</Code></Error>'],
    ["a firewall's page", 'cdn_foreign_answer', 403, { 'content-type': 'text/html' }, '<html>Blocked</html>'],
    ['a login page of the network', 'cdn_foreign_answer', 200, { 'content-type': 'text/html' }, '<html>Welcome</html>'],
    ['a redirect to such a page', 'cdn_foreign_answer', 302, { location: 'http://127.0.0.1:9/' }, ''],
    ["a gateway's page", 'cdn_foreign_answer', 404, { 'content-type': 'text/html' }, '<html>Not here</html>'],
  ] as const;
  for (const [what, code, status, headers, body] of PASSING) {
    it(`is read on after one answer with ${what}`, async () => {
      let calls = 0;
      const cdn = await startCdn((request, response) => {
        if (++calls === 2) response.writeHead(status, headers).end(body);
        else serveContent(request, response);
      });
      assert.equal(await read(cdn), CONTENT.toString());
      assert.equal(calls, 3);
    });

    it(`fails with ${code} when each range is answered with ${what}`, async () => {
      let calls = 0;
      const cdn = await startCdn((request, response) => {
        if (calls++ === 0) serveContent(request, response);
        else response.writeHead(status, headers).end(body);
      });
      await assert.rejects(read(cdn), { code, message: /It was tried \d+ times within/ });
    });
  }

  it('is waited for as long as the CDN asks', async () => {
    const times: number[] = [];
    const cdn = await startCdn(
      (request, response) => {
        times.push(performance.now());
        if (times.length === 1) response.writeHead(503, { 'retry-after': '1' }).end();
        else serveContent(request, response);
      },
      undefined,
      { ...PATIENCE, limitMs: 5000 },
    );
    await cdn.openObject('models', 'm.big', 4, NEVER);
    assert.ok((times[1] ?? 0) - (times[0] ?? 0) >= 1000);
  });

  it('is not waited for when the CDN asks for more than the patience', async () => {
    let calls = 0;
    const cdn = await startCdn((_, response) => {
      calls++;
      response.writeHead(429, { 'retry-after': '3600' }).end();
    });
    await assert.rejects(cdn.openObject('models', 'm.big', 4, NEVER), { code: 'cdn_error', message: /3600 s/ });
    assert.equal(calls, 1);
  });

  const small = { 'x-amz-meta-small-sha256': 'ab'.repeat(32) };
  const modified = { 'last-modified': 'Fri, 27 Nov 2026 09:00:00 GMT' };
  const versions: readonly (readonly [what: string, headersOf: (call: number) => OutgoingHttpHeaders])[] = [
    ['its ETags are weak', () => ({ etag: `W/${ETAG}`, ...small })],
    ['each edge of the CDN has another ETag', (call: number) => ({ etag: `"edge ${call}"`, ...small })],
    ['it has no ETag', () => small],
    ['an older Loader uploaded it, and its ETags are weak', () => ({ etag: `W/${ETAG}`, ...modified })],
    [
      'an older Loader uploaded it, and each edge has another ETag',
      (call: number) => ({ etag: `"${call}"`, ...modified }),
    ],
  ];
  for (const [what, headersOf] of versions) {
    it(`is read where ${what}`, async () => {
      let calls = 0;
      const cdn = await startCdn((request, response) => {
        const headers = headersOf(calls++);
        const condition = request.headers['if-match'];
        assert.ok(condition?.startsWith('W/') !== true, 'a weak ETag never matches');
        if (condition !== undefined && condition !== headers.etag) response.writeHead(412).end();
        else serveContent(request, response, headers);
      });
      assert.equal(await read(cdn), CONTENT.toString());
    });
  }

  it('fails with cdn_version_unknown where nothing tells its versions apart', async () => {
    const cdn = await startCdn((request, response) => serveContent(request, response, { etag: `W/${ETAG}` }));
    await assert.rejects(read(cdn), { code: 'cdn_version_unknown' });
  });

  it('is looked at over a connection of the uploads', async () => {
    const sockets = new Set<unknown>();
    const cdn = await startCdn((request, response) => {
      sockets.add(request.socket);
      if (request.method === 'HEAD') response.writeHead(200, { etag: ETAG, 'content-length': CONTENT.length }).end();
      else response.end('<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>');
    });
    await cdn.startUpload('models', 'm.big', 'ab'.repeat(32), { signal: NEVER });
    await turn(); // undici uses a connection again after a turn of the event loop.
    assert.equal((await cdn.lookAt('models', 'm.big', NEVER))?.etag, ETAG);
    assert.equal(sockets.size, 1);
  });

  it('is absent where the CDN says so, and not where a gateway does', async () => {
    let body = '<Error><Code>NoSuchKey</Code></Error>';
    const cdn = await startCdn((_, response) => void response.writeHead(404).end(body));
    assert.equal(await cdn.lookAt('models', 'm.big', NEVER), undefined);
    body = '<html>Not here</html>';
    await assert.rejects(cdn.lookAt('models', 'm.big', NEVER), { code: 'cdn_foreign_answer' });
  });
});

describe('what the CDN says of an object', () => {
  const answer = (headers: OutgoingHttpHeaders): RequestListener => {
    return (_request, response) => void response.writeHead(206, { etag: ETAG, ...headers }).end('6789');
  };

  for (const [what, headers] of [
    ['a length of 2^53', { 'content-range': `bytes ${2 ** 53 - 4}-${2 ** 53 - 1}/${2 ** 53}` }],
    ['a length of 1 TiB and 16 bytes', { 'content-range': `bytes ${2 ** 40 + 12}-${2 ** 40 + 15}/${2 ** 40 + 16}` }],
    ['a length of 300 digits', { 'content-range': `bytes ${'9'.repeat(300)}-${'9'.repeat(300)}/${'9'.repeat(300)}` }],
    ['an ETag of 257 characters', { etag: `"${'e'.repeat(255)}"`, 'content-range': 'bytes 6-9/10' }],
    ['17 KiB of headers', { 'x-long': 'x'.repeat(17 * 1024), 'content-range': 'bytes 6-9/10' }],
  ] as const) {
    it(`is not believed: ${what}`, async () => {
      let requests = 0;
      const cdn = await startCdn((request, response) => {
        requests++;
        answer(headers)(request, response);
      });
      await assert.rejects(cdn.openObject('models', 'm.big', 4, NEVER), { code: 'cdn_invalid_response' });
      assert.equal(requests, 1);
    });
  }

  it('may be a length of 1 TiB and an ETag of 256 characters', async () => {
    const etag = `"${'e'.repeat(254)}"`;
    const cdn = await startCdn(answer({ etag, 'content-range': `bytes ${2 ** 40 - 4}-${2 ** 40 - 1}/${2 ** 40}` }));
    const object = await cdn.openObject('models', 'm.big', 4, NEVER);
    assert.deepEqual([object.length, object.etag], [2 ** 40, etag]);
  });
});

describe('what the CDN says of an upload', () => {
  const XML = '<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>';

  for (const [what, xml] of [
    ['an ID of 257 characters', XML.replace('>1<', `>${'1'.repeat(257)}<`)],
    ['2 MiB of XML', XML.replace('>1<', `>1</UploadId><X>${'x'.repeat(2 * 1024 * 1024)}</X><UploadId>1<`)],
  ] as const) {
    it(`is not believed: ${what}`, async () => {
      const cdn = await startCdn((_request, response) => response.end(xml));
      const started = cdn.startUpload('models', 'm.big', 'small', { signal: NEVER });
      await assert.rejects(started, { code: 'cdn_invalid_response' });
    });
  }

  it('is not believed: an ETag of a part with 257 characters', async () => {
    const cdn = await startCdn((request, response) => {
      request.resume();
      if (request.method === 'PUT') response.setHeader('etag', `"${'e'.repeat(255)}"`);
      response.end(request.method === 'PUT' ? '' : XML);
    });
    const upload = await cdn.startUpload('models', 'm.big', 'small', { signal: NEVER });
    await assert.rejects(upload.sendPart(1, Buffer.from('part'), sha256(Buffer.from('part'))), {
      code: 'cdn_invalid_response',
    });
  });
});
