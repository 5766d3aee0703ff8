import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { Outage } from '../../../src/async/outage.ts';
import { S3CdnManager } from '../../../src/cdn/s3-cdn-manager.ts';
import { TestLinks } from '../../support/test-links.ts';

const PATIENCE = { limitMs: 300, setting: 'STALL_TIMEOUT_MS' };
const HOUR_MS = 3600_000;
/** What a server allows, as S3 does. */
const TOLERANCE_MS = 15 * 60_000;
const CONTENT = Buffer.from('0123456789abcdef');

/** What a test changes: the clock of the server, and how it says that a time is wrong. */
let serverOffsetMs: number;
let refusalCode: string;
let refuses: boolean;
let asked: { method: string; isRefused: boolean }[];
let links: TestLinks;
let close: () => Promise<void>;
let url: string;

beforeEach(async () => {
  serverOffsetMs = HOUR_MS;
  refusalCode = 'RequestTimeTooSkewed';
  refuses = false;
  asked = [];
  links = new TestLinks();
  const server = createServer(answer);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  close = async () => {
    await links[Symbol.asyncDispose]();
    server.closeAllConnections();
    server.close();
  };
});

afterEach(async () => await close());

function answer(request: IncomingMessage, response: ServerResponse): void {
  const now = Date.now() + serverOffsetMs;
  const signedAt = String(request.headers['x-amz-date']).replace(
    /^(....)(..)(..)T(..)(..)(..)Z$/,
    '$1-$2-$3T$4:$5:$6Z',
  );
  const isRefused = refuses || Math.abs(Date.parse(signedAt) - now) > TOLERANCE_MS;
  asked.push({ method: request.method ?? '', isRefused });
  request.resume();
  response.setHeader('date', new Date(now).toUTCString());
  if (isRefused) {
    const body = `<Error><Code>${refusalCode}</Code><Message>m</Message></Error>`;
    return void response
      .writeHead(403, { 'content-type': 'application/xml' })
      .end(request.method === 'HEAD' ? '' : body);
  }
  if (request.method === 'POST') {
    const result = '<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>';
    return void response.writeHead(200, { 'content-type': 'application/xml' }).end(result);
  }
  if (request.method === 'HEAD') return void response.writeHead(200, { etag: '"1"', 'content-length': 16 }).end();
  const [, first = '', last = ''] = /^bytes=(\d*)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
  const start = first === '' ? CONTENT.length - Number(last) : Number(first);
  const end = first === '' ? CONTENT.length : Number(last) + 1;
  const range = `bytes ${start}-${end - 1}/${CONTENT.length}`;
  response.writeHead(206, { etag: '"1"', 'content-range': range, 'content-length': end - start });
  response.end(CONTENT.subarray(start, end));
}

/** What a login makes. */
function login(): S3CdnManager {
  const keys = { accessKeyId: 'k', secretAccessKey: 'secret' };
  const config = { host: url, region: 'r', bucket: 'b', downloader: keys, uploader: keys, resourceKey: undefined };
  return new S3CdnManager(config, links.cdn(500));
}

const open = async (cdn: S3CdnManager) => await cdn.openObject('models', 'm.big', 4, NEVER);
const refused = () => asked.filter(({ isRefused }) => isRefused).length;

describe('a CDN whose clock is an hour ahead', () => {
  it('gets the first request of a device again with its own time, and all later ones at once, also after a new login', async () => {
    const object = await open(login());
    assert.equal(object.tail.toString(), 'cdef');
    assert.equal(refused(), 1);
    const second = login();
    await open(second);
    await second.lookAt('models', 'm.big', NEVER);
    await second.startUpload('models', 'm.big', 'abc', { signal: NEVER });
    assert.equal(refused(), 1);
    assert.equal(links.corrections.length, 1);
    assert.ok(Math.abs((links.clock.offsetMs ?? 0) - HOUR_MS) < 5000);
  });

  it('gets four ranges at once again, with one correction', async () => {
    serverOffsetMs = 0;
    const cdn = login();
    const object = await open(cdn);
    serverOffsetMs = HOUR_MS;
    const ranges = [0, 4, 8, 12].map(async (start) =>
      Buffer.concat(
        await Array.fromAsync(cdn.readRange(object, start, start + 4, { signal: NEVER, outage: new Outage(PATIENCE) })),
      ),
    );
    assert.equal(Buffer.concat(await Promise.all(ranges)).toString(), CONTENT.toString());
    assert.ok(refused() <= 4);
    assert.equal(links.corrections.length, 1);
  });

  for (const code of ['SignatureDoesNotMatch', 'AccessDenied']) {
    it(`may call the refusal ${code}`, async () => {
      refusalCode = code;
      await open(login());
      assert.equal(refused(), 1);
    });
  }

  it('may refuse an upload, and a question that has no body', async () => {
    await login().lookAt('models', 'm.big', NEVER);
    assert.deepEqual(asked[0], { method: 'HEAD', isRefused: true });
    serverOffsetMs = -HOUR_MS;
    await login().startUpload('models', 'm.big', 'abc', { signal: NEVER });
    assert.equal(refused(), 2);
    assert.equal(links.corrections.length, 2);
  });

  it('may be 56 years ahead, of a device that begins in 1970', async () => {
    serverOffsetMs = 56 * 365 * 24 * HOUR_MS;
    await open(login());
    assert.equal(refused(), 1);
    assert.equal(links.corrections.length, 1);
  });

  it('is the reason that is told when it refuses its own time', async () => {
    refuses = true;
    await assert.rejects(open(login()), { code: 'clock_wrong', message: /this device's clock says 20/ });
    assert.equal(links.corrections.length, 1);
  });
});

describe('a CDN whose clock is right', () => {
  it('that refuses a key is asked once, and no clock is corrected', async () => {
    serverOffsetMs = 0;
    refuses = true;
    refusalCode = 'AccessDenied';
    await assert.rejects(open(login()), { code: 'cdn_access_denied' });
    assert.equal(asked.length, 1);
    assert.deepEqual(links.corrections, []);
  });
});
