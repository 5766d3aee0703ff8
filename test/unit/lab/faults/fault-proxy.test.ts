import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, beforeEach, describe, it } from 'node:test';
import { Agent, request } from 'undici';
import { FaultProxy } from '../../../../lab/faults/fault-proxy.ts';
import { RawConnection } from '../../../../lab/faults/raw-http.ts';
import { S3_MANNERS } from '../../../../lab/faults/s3-manners.ts';
import { eventually } from '../../../../lab/waiting.ts';

const HOUR_MS = 3600_000;

describe('FaultProxy', () => {
  let server: Server;
  let proxy: FaultProxy;
  let seen: IncomingHttpHeaders[] = [];
  const agent = new Agent({ connections: 1 });

  before(async () => {
    server = createServer((incoming, outgoing) => {
      seen.push(incoming.headers);
      incoming.resume().on('end', () => outgoing.writeHead(200, { etag: '"1"' }).end('x'.repeat(200_000)));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    proxy = await FaultProxy.start(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  });

  beforeEach(() => {
    proxy.reset();
    seen = [];
  });

  after(async () => {
    await agent.close();
    await proxy.stop();
    server.closeAllConnections();
    server.close();
  });

  async function get(headers: Record<string, string> = {}) {
    const answer = await request(proxy.url, { dispatcher: agent, headers });
    return { status: answer.statusCode, headers: answer.headers, body: await answer.body.text() };
  }

  it('puts another body into the place of that of the upstream, which has done what was asked', async () => {
    proxy.fault = () => ({ kind: 'rewrite', status: 203, headers: { etag: undefined }, body: 'odd' });
    const { status, headers, body } = await get();
    assert.deepEqual([status, headers['etag'], body], [203, undefined, 'odd']);
    assert.equal(seen.length, 1);
  });

  it('resets a connection after some bytes', async () => {
    proxy.fault = () => ({ kind: 'reset', afterBytes: 1000 });
    await assert.rejects(get());
  });

  it('says 100 Continue, or never, as its manner is', async () => {
    const head = 'PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n';
    for (const saysContinue of [true, false]) {
      proxy.manner = saysContinue ? {} : S3_MANNERS['never says 100 Continue'];
      const connection = await RawConnection.open(Number(new URL(proxy.url).port));
      await connection.send(head);
      await eventually(() => proxy.requests.length > 0);
      await connection.send('x');
      await eventually(() => connection.received.includes('HTTP/1.1 200'));
      assert.equal(connection.received.startsWith('HTTP/1.1 100'), saysContinue);
      connection.close();
      proxy.reset();
    }
  });

  it('closes connections after some answers', async () => {
    proxy.manner = { answersPerConnection: 2 };
    const connection = await RawConnection.open(Number(new URL(proxy.url).port));
    for (let count = 1; count <= 2; count++) {
      assert.equal(connection.isClosed, false);
      await connection.send('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      await eventually(() => connection.receivedLength > count * 200_000);
    }
    await eventually(() => connection.isClosed);
    assert.doesNotMatch(connection.received, /connection: close/i);
  });

  it('has a clock of its own, and refuses signatures that are far from it', async () => {
    proxy.manner = { clockAheadMs: HOUR_MS };
    const signedAt = (ms: number) => ({ 'x-amz-date': new Date(ms).toISOString().replaceAll(/[-:]|\.\d+/g, '') });
    const refused = await get(signedAt(Date.now()));
    assert.equal(refused.status, 403);
    assert.match(refused.body, /RequestTimeTooSkewed/);
    const aheadMs = Date.parse(String(refused.headers['date'])) - Date.now();
    assert.ok(Math.abs(aheadMs - HOUR_MS) < 60_000, String(aheadMs));
    assert.equal(seen.length, 0);
    const taken = await get(signedAt(Date.now() + HOUR_MS));
    assert.equal(taken.status, 200);
    assert.ok(Date.parse(String(taken.headers['date'])) - Date.now() > HOUR_MS / 2);
    assert.equal((await get()).status, 200);
  });

  it('takes Range away, and changes ETags', async () => {
    proxy.manner = S3_MANNERS['takes Range away'];
    await get({ range: 'bytes=0-1' });
    assert.equal(seen[0]?.range, undefined);
    proxy.manner = S3_MANNERS['no ETags'];
    assert.equal((await get()).headers['etag'], undefined);
    proxy.manner = S3_MANNERS['weak ETags'];
    assert.equal((await get()).headers['etag'], 'W/"1"');
    proxy.manner = S3_MANNERS['ETags that differ between edges'];
    assert.notEqual((await get()).headers['etag'], (await get({ 'if-match': '"2"' })).headers['etag']);
    assert.equal(seen.at(-1)?.['if-match'], undefined);
  });
});
