import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CertificateAuthority } from '../../../lab/links/certificate-authority.ts';
import { ShapedLink } from '../../../lab/links/shaped-link.ts';
import { eventually } from '../../../lab/waiting.ts';
import { startS3Store } from '../../../lab/upstream/s3-store.ts';
import { Device, type DeviceOptions } from '../../support/device.ts';

const CONTENT = randomBytes(9_000_000);

/** Long enough for a machine that is busy: what is too slow is a matter of the bench. */
const PATIENCE = { STALL_TIMEOUT_MS: '20000', UPSTREAM_TIMEOUT_MS: '20000' };

/** Waits until so many bytes have come over the link. */
async function untilDown({ counts }: ShapedLink, bytes: number): Promise<void> {
  await eventually(() => counts.bytesDown >= bytes);
}

/** Uploads, loads from the CDN and loads from the cache, on an S3 server that is not Ceph. */
async function tryRoundTrip(options: DeviceOptions = {}): Promise<void> {
  const store = await startS3Store();
  const device = await Device.start({ s3: store, env: PATIENCE, ...options });
  try {
    await device.login();
    await device.upload('m', CONTENT);
    await device.clearCache();
    for (let count = 0; count < 2; count++) {
      const answer = await device.loader.load('m');
      assert.equal(answer.status, 200);
      assert.ok(Buffer.from(await answer.arrayBuffer()).equals(CONTENT));
    }
  } finally {
    await device.stop();
    await store.stop();
  }
}

describe('an upload and its loads', () => {
  it('succeed on another S3 server', async () => {
    await tryRoundTrip();
  });

  for (const offersHttp2 of [false, true]) {
    it(`succeed over a link with losses and TLS that offers ${offersHttp2 ? 'HTTP/2' : 'HTTP/1.1'}`, async () => {
      await using link = ShapedLink.start({ delayMs: 5, bytesPerSecond: 50_000_000, loss: 0.001 });
      await tryRoundTrip({ over: { link, authority: new CertificateAuthority(), offersHttp2 } });
      assert.ok(link.counts.bytesUp > CONTENT.length && link.counts.bytesDown > CONTENT.length);
      assert.ok(link.counts.handshakes > 0);
    });
  }
});

describe('a cold load', () => {
  for (const outage of ['silent', 'reset'] as const) {
    it(`outlasts a link that is ${outage} for a second, and fetches nothing twice`, async () => {
      await using link = ShapedLink.start({ delayMs: 5, bytesPerSecond: 6_000_000 });
      const store = await startS3Store();
      const over = { link, authority: new CertificateAuthority() };
      const device = await Device.start({ s3: store, env: PATIENCE, over });
      try {
        await device.login();
        await device.upload('m', CONTENT);
        await device.clearCache();
        link.counts.reset();
        const answer = await device.loader.load('m');
        const body = answer.arrayBuffer();
        await untilDown(link, CONTENT.length / 3);
        await link.change({ outage });
        await sleep(1000);
        assert.ok(link.counts.bytesDown < CONTENT.length, 'the outage came too late');
        await link.change({ outage: 'none' });
        assert.ok(Buffer.from(await body).equals(CONTENT));
        assert.ok(link.counts.bytesDown < 1.1 * CONTENT.length, `${link.counts.bytesDown} bytes came down`);
      } finally {
        await device.stop();
        await store.stop();
      }
    });
  }
});
