import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { sha256 } from '../../../lab/sha256.ts';
import { NEVER } from '../../../src/async/abort.ts';
import { createCdnClient, type CdnClient } from '../../../src/cdn/cdn-client.ts';
import type { LoaderError } from '../../../src/errors.ts';
import { S3Upload } from '../../../src/cdn/s3-upload.ts';
import { TestLinks } from '../../support/test-links.ts';

const LOCATION = { bucket: 'models', key: 'm.big' };

type Answer = (response: ServerResponse, request: IncomingMessage) => void;

const xml =
  (status: number, body: string): Answer =>
  (response) =>
    response.writeHead(status, { 'content-type': 'application/xml' }).end(body);
const failure = (status: number, code: string) => xml(status, `<Error><Code>${code}</Code></Error>`);
const cut: Answer = (_response, request) => request.socket.destroy();

const CREATED = xml(
  200,
  '<InitiateMultipartUploadResult><UploadId>upload-1</UploadId></InitiateMultipartUploadResult>',
);
const COMPLETED = xml(200, '<CompleteMultipartUploadResult><ETag>"whole"</ETag></CompleteMultipartUploadResult>');
const ABORTED: Answer = (response) => response.writeHead(204).end();

/** What the server answers, by what it is asked for; tests change it. */
let answers: { create: Answer; part: Answer; complete: Answer; abort: Answer };
/** What it was asked for, in order, with the bodies of parts and completions. */
let seen: { kind: keyof typeof answers; url: string; headers: IncomingMessage['headers']; body: Buffer }[];
let client: CdnClient;
let close: () => Promise<void>;

beforeEach(async () => {
  seen = [];
  answers = {
    create: CREATED,
    part: (response, request) =>
      response.writeHead(200, { etag: `"part-${/partNumber=(\d+)/.exec(request.url ?? '')?.[1] ?? ''}"` }).end(),
    complete: COMPLETED,
    abort: ABORTED,
  };
  const server = createServer((request, response) => void answer(request, response));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const links = new TestLinks();
  client = createCdnClient({
    host: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    region: 'eu-1',
    keys: { accessKeyId: 'UP', secretAccessKey: 'secret' },
    dispatcher: links.uploads,
    patience: { limitMs: 1000, setting: 'STALL_TIMEOUT_MS' },
    silenceMs: 1000,
    clock: links.clock,
  });
  close = async () => {
    await links[Symbol.asyncDispose]();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
});

afterEach(async () => {
  await close();
});

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { method, url = '', headers } = request;
  const body = await buffer(request);
  const kind =
    method === 'PUT' ? 'part' : method === 'DELETE' ? 'abort' : url.includes('uploads') ? 'create' : 'complete';
  seen.push({ kind, url, headers, body });
  answers[kind](response, request);
}

/** The body and the digest of a part. */
function part(text: string): [Buffer<ArrayBuffer>, string] {
  const body = Buffer.from(text);
  return [body, sha256(body)];
}

const kinds = () => seen.map(({ kind }) => kind);
const METADATA = { 'small-sha256': 'abc' };
const start = async (signal = NEVER) => await S3Upload.start(client, LOCATION, METADATA, { signal });

describe('an upload to the CDN', () => {
  it('makes its parts one object, in their order', async () => {
    const upload = await start();
    await upload.sendPart(2, ...part('second'));
    await upload.sendPart(1, ...part('first'));
    await upload.complete();
    assert.deepEqual(kinds(), ['create', 'part', 'part', 'complete']);
    assert.equal(seen[0]?.headers['x-amz-meta-small-sha256'], 'abc');
    for (const { kind, url } of seen) {
      assert.ok(url.startsWith('/models/m.big?'), url);
      if (kind !== 'create') assert.match(url, /uploadId=upload-1/);
    }
    const parts = [...(seen[3]?.body.toString() ?? '').matchAll(/<(PartNumber|ETag)>([^<]*)</g)].map(
      ([, , value]) => value,
    );
    assert.deepEqual(new Set(parts.slice(0, 2)), new Set(['1', '&quot;part-1&quot;']));
    assert.deepEqual(new Set(parts.slice(2)), new Set(['2', '&quot;part-2&quot;']));
  });

  it('may be completed with an empty ETag, as Ceph does', async () => {
    answers.complete = xml(200, '<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>');
    const upload = await start();
    await upload.sendPart(1, ...part('part'));
    await upload.complete();
  });

  it('signs the digest of each part', async () => {
    const body = randomBytes(100_000);
    await (await start()).sendPart(1, body, sha256(body));
    const part = seen[1];
    assert.ok(part?.body.equals(body) === true);
    assert.equal(part.headers['x-amz-content-sha256'], sha256(body));
  });

  it('says when it is asked for once more, since another one may have begun', async () => {
    const codes: string[] = [];
    const onRepeat = ({ code }: LoaderError) => codes.push(code);
    await S3Upload.start(client, LOCATION, METADATA, { signal: NEVER, onRepeat });
    assert.deepEqual(codes, []);
    answers.create = (response, request) => (codes.length === 0 ? cut : CREATED)(response, request);
    await S3Upload.start(client, LOCATION, METADATA, { signal: NEVER, onRepeat });
    assert.deepEqual(codes, ['cdn_unreachable']);
  });

  it('is refused where a network answers everything with its page', async () => {
    const page: Answer = (response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>Welcome</p>');
    const upload = await start();
    answers = { create: page, part: page, complete: page, abort: page };
    const expected = { code: 'cdn_foreign_answer' };
    await assert.rejects(start(), expected);
    await assert.rejects(upload.sendPart(1, ...part('first')), expected);
    await assert.rejects(upload.complete(), expected);
    await assert.rejects(upload.abort(), expected);
  });

  it('is refused without an ID', async () => {
    answers.create = xml(200, '<InitiateMultipartUploadResult></InitiateMultipartUploadResult>');
    await assert.rejects(start(), { code: 'cdn_invalid_response' });
  });

  it('is refused when a part has no ETag', async () => {
    answers.part = (response) => response.writeHead(200).end();
    const upload = await start();
    await assert.rejects(upload.sendPart(1, ...part('first')), { code: 'cdn_invalid_response' });
  });

  it('says that the bucket is missing, and not a resource', async () => {
    answers.create = failure(404, 'NoSuchBucket');
    await assert.rejects(start(), { code: 'cdn_bucket_missing' });
    answers.create = CREATED;
    for (const name of ['NoSuchUpload', 'NoSuchKey']) {
      answers.part = failure(404, name);
      const upload = await start();
      await assert.rejects(upload.sendPart(1, ...part('first')), { code: 'cdn_upload_lost' });
    }
  });
});

describe('an aborted upload', () => {
  it('leaves nothing on the CDN when its signal came while it was started', async () => {
    const abort = new AbortController();
    const reason = new Error('no longer wanted');
    answers.create = (response, request) => {
      abort.abort(reason);
      CREATED(response, request);
    };
    await assert.rejects(start(abort.signal), reason);
    assert.deepEqual(kinds(), ['create', 'abort']);
    assert.match(seen[1]?.url ?? '', /uploadId=upload-1/);
  });

  it('sends no more parts, and is removed all the same', async () => {
    const abort = new AbortController();
    const reason = new Error('no longer wanted');
    const upload = await start(abort.signal);
    answers.part = () => abort.abort(reason);
    await assert.rejects(upload.sendPart(1, ...part('first')), reason);
    await upload.abort();
    assert.deepEqual(kinds(), ['create', 'part', 'abort']);
  });

  it('that the CDN no longer has is gone, and that is no failure', async () => {
    for (const code of ['NoSuchUpload', 'NoSuchKey']) {
      answers.abort = failure(404, code);
      assert.equal(await (await start()).abort(), 'gone');
    }
    answers.abort = failure(403, 'AccessDenied');
    await assert.rejects((await start()).abort(), { code: 'cdn_access_denied' });
  });

  it('is not removed where a page of the network says so', async () => {
    answers.abort = xml(200, '<html>Welcome</html>');
    await assert.rejects((await start()).abort(), { code: 'cdn_invalid_response' });
  });
});

describe('a completion', () => {
  it('fails when all its answers are lost: only the object tells then what stands', async () => {
    answers.complete = cut;
    const upload = await start();
    await upload.sendPart(1, ...part('first'));
    await assert.rejects(upload.complete(), { code: 'cdn_unreachable' });
  });

  it('is repeated while the CDN fails, and so is all that comes before it', async () => {
    for (const kind of ['create', 'part', 'complete'] as const) {
      const good = answers[kind];
      for (const bad of [cut, failure(503, 'SlowDown'), failure(400, 'RequestTimeout')]) {
        let calls = 0;
        answers[kind] = (response, request) => (++calls < 3 ? bad : good)(response, request);
        const upload = await start();
        await upload.sendPart(1, ...part('first'));
        await upload.complete();
        assert.equal(calls, 3);
      }
      answers[kind] = good;
    }
  });

  it('whose answer was lost finds no such upload when it is repeated', async () => {
    let calls = 0;
    answers.complete = (response, request) => (++calls === 1 ? cut : failure(404, 'NoSuchUpload'))(response, request);
    const upload = await start();
    await upload.sendPart(1, ...part('first'));
    await assert.rejects(upload.complete(), { code: 'cdn_upload_lost' });
  });

  it('gives back a part by its strong ETag where a proxy made it weak', async () => {
    answers.part = (response) => response.writeHead(200, { etag: 'W/"one"' }).end();
    const upload = await start();
    await upload.sendPart(1, ...part('first'));
    assert.deepEqual(upload.parts, [{ number: 1, etag: '"one"' }]);
  });

  it('that is answered by something else than a result is none', async () => {
    answers.complete = xml(200, '<html>Welcome</html>');
    const upload = await start();
    await upload.sendPart(1, ...part('first'));
    await assert.rejects(upload.complete(), { name: 'LoaderError' });
  });

  it('goes on with the parts that an earlier process has sent', async () => {
    const upload = new S3Upload(
      client,
      { ...LOCATION, uploadId: 'upload-0' },
      [{ number: 1, etag: '"part-1"' }],
      NEVER,
    );
    await upload.complete();
    assert.match(seen[0]?.url ?? '', /uploadId=upload-0/);
    assert.match(seen[0]?.body.toString() ?? '', /part-1/);
  });
});
