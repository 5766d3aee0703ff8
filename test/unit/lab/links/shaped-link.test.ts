import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { Agent, request } from 'undici';
import { CertificateAuthority } from '../../../../lab/links/certificate-authority.ts';
import { ShapedLink } from '../../../../lab/links/shaped-link.ts';
import { eventually } from '../../../../lab/waiting.ts';

const CONTENT = randomBytes(1_000_000);
/** As fast as the machine, so that the tests are. */
const SHORT_LINK = { delayMs: 2, bytesPerSecond: 1e9 };

describe('ShapedLink', () => {
  const ca = new CertificateAuthority();
  let server: Server;
  let target: string;

  before(async () => {
    server = createServer((incoming, outgoing) => {
      if (incoming.method === 'POST') incoming.pipe(outgoing);
      else outgoing.end(CONTENT);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    target = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });

  after(() => {
    server.closeAllConnections();
    server.close();
  });

  it('carries bytes both ways, and counts connections and bytes', async () => {
    await using link = ShapedLink.start({ ...SHORT_LINK, loss: 0.01 });
    const url = await link.open(target);
    const agent = new Agent();
    const answer = await request(url, { dispatcher: agent, method: 'POST', body: CONTENT });
    assert.deepEqual(Buffer.from(await answer.body.arrayBuffer()), CONTENT);
    assert.equal(link.counts.connections, 1);
    assert.equal(link.counts.openConnections, 1);
    assert.ok(link.counts.losses > 0);
    for (const bytes of [link.counts.bytesUp, link.counts.bytesDown]) {
      assert.ok(bytes > CONTENT.length && bytes < CONTENT.length + 1000, String(bytes));
    }
    await agent.close();
    await eventually(() => link.counts.openConnections === 0);
    link.counts.reset();
    assert.equal(link.counts.connections, 0);
  });

  it('takes at least the time of its shape', async () => {
    await using link = ShapedLink.start({ delayMs: 20, bytesPerSecond: 10_000_000 });
    const url = await link.open(target);
    const agent = new Agent();
    const startedAtMs = performance.now();
    const answer = await request(url, { dispatcher: agent });
    assert.equal((await answer.body.arrayBuffer()).byteLength, CONTENT.length);
    // The handshake, the request and the first answer are two round trips; 1 MB takes 0.1 s.
    assert.ok(performance.now() - startedAtMs >= 80 + 100 - 5);
    await agent.close();
  });

  it('has TLS behind it, of which it counts the handshakes', async () => {
    await using link = ShapedLink.start(SHORT_LINK);
    const url = await link.open(target, ca.issue());
    assert.match(url, /^https:/);
    const agent = new Agent({ connections: 1, connect: { ca: ca.certificate } });
    for (let count = 0; count < 2; count++) {
      const answer = await request(url, { dispatcher: agent });
      assert.deepEqual(Buffer.from(await answer.body.arrayBuffer()), CONTENT);
    }
    assert.equal(link.counts.connections, 1);
    assert.equal(link.counts.handshakes, 1);
    assert.equal(link.counts.http2Handshakes, 0);
    await agent.close();
  });

  it('passes on that a server or a client has gone', async () => {
    await using link = ShapedLink.start(SHORT_LINK);
    const refused = await link.open('http://127.0.0.1:1');
    await assert.rejects(request(refused));
    const held = createServer(() => undefined).listen(0, '127.0.0.1');
    await once(held, 'listening');
    const port = (held.address() as AddressInfo).port;
    const url = await link.open(`http://127.0.0.1:${port}`);
    const client = connect(Number(new URL(url).port), '127.0.0.1');
    client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    const [incoming] = (await once(held, 'request')) as [{ readonly socket: { readonly destroyed: boolean } }];
    client.destroy();
    await eventually(() => incoming.socket.destroyed);
    held.close();
  });

  it('says nothing during a silent outage, and goes on after it', async () => {
    await using link = ShapedLink.start({ ...SHORT_LINK, outage: 'silent' });
    const url = await link.open(target);
    const agent = new Agent();
    const answer = request(url, { dispatcher: agent });
    await eventually(() => link.counts.connections === 1);
    assert.equal(link.counts.bytesUp, 0);
    await link.change({ outage: 'none' });
    assert.equal((await (await answer).body.arrayBuffer()).byteLength, CONTENT.length);
    await agent.close();
  });

  it('resets connections, old and new ones, during an outage of that kind', async () => {
    await using link = ShapedLink.start({ delayMs: 5000, bytesPerSecond: 1e9 });
    const url = await link.open(target);
    // It fails before the outage is reported to have begun.
    const old = assert.rejects(request(url));
    await eventually(() => link.counts.openConnections === 1);
    await link.change({ outage: 'reset' });
    await old;
    await assert.rejects(request(url));
    assert.equal(link.counts.bytesUp, 0);
  });
});
