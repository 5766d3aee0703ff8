import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { Agent, request } from 'undici';
import { CertificateAuthority, type CertificateOptions } from '../../../../lab/links/certificate-authority.ts';
import { TlsFront } from '../../../../lab/links/tls-front.ts';

const CONTENT = randomBytes(1_000_000);
const HOUR_MS = 3600_000;

describe('TlsFront', () => {
  const ca = new CertificateAuthority();
  let server: Server;
  let target: string;

  before(async () => {
    server = createServer((incoming, outgoing) => {
      outgoing.setHeader('x-seen', `${incoming.method ?? ''} ${incoming.url ?? ''} ${incoming.headers.host ?? ''}`);
      incoming.pipe(outgoing);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    target = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });

  after(() => {
    server.closeAllConnections();
    server.close();
  });

  for (const offersHttp2 of [false, true]) {
    it(`passes requests and answers on over HTTP/${offersHttp2 ? '2' : '1.1'}`, async () => {
      const seen: boolean[] = [];
      await using front = await TlsFront.start({
        ...ca.issue(),
        target,
        offersHttp2,
        onHandshake: ({ isHttp2 }) => seen.push(isHttp2),
      });
      const agent = new Agent({ allowH2: true, connect: { ca: ca.certificate } });
      const answer = await request(`${front.url}/a?b=c`, { dispatcher: agent, method: 'POST', body: CONTENT });
      assert.equal(answer.headers['x-seen'], `POST /a?b=c 127.0.0.1:${front.port}`);
      assert.deepEqual(Buffer.from(await answer.body.arrayBuffer()), CONTENT);
      assert.deepEqual(seen, [offersHttp2]);
      await agent.close();
    });
  }

  it('is taken for the other name of its certificate too', async () => {
    await using front = await TlsFront.start({ ...ca.issue(), target });
    const agent = new Agent({ connect: { ca: ca.certificate } });
    const answer = await request(`https://localhost:${front.port}/`, { dispatcher: agent });
    assert.equal(answer.statusCode, 200);
    await answer.body.dump();
    await agent.close();
  });

  const faults: readonly [string, CertificateOptions, trusted: string, code: string][] = [
    ['one that has expired', { validUntil: new Date(Date.now() - HOUR_MS) }, ca.certificate, 'CERT_HAS_EXPIRED'],
    [
      'one that is not valid yet',
      { validFrom: new Date('2051-01-01'), validUntil: new Date('2052-01-01') },
      ca.certificate,
      'CERT_NOT_YET_VALID',
    ],
    ['one for another host', { hosts: ['other.example'] }, ca.certificate, 'ERR_TLS_CERT_ALTNAME_INVALID'],
    [
      'one of another authority',
      {},
      new CertificateAuthority('Another').certificate,
      'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    ],
  ];
  for (const [name, options, trusted, code] of faults) {
    it(`has certificates with a fault: ${name}`, async () => {
      await using front = await TlsFront.start({ ...ca.issue(options), target });
      const agent = new Agent({ connect: { ca: trusted } });
      await assert.rejects(request(front.url, { dispatcher: agent }), { code });
      await agent.close();
    });
  }
});
