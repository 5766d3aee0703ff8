import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Device } from '../../support/device.ts';
import type { Fault } from '../../../lab/faults/fault-proxy.ts';
import { shippedFolder, shippedMain } from '../../../lab/shipped-folder.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';

const content = randomBytes(26_000_000);
const PASS: Fault = { kind: 'pass' };
const MAIN = shippedMain(await shippedFolder());

/** A device with a cold load under way, whose last range comes after `delayMs`. */
async function deviceWithSlowLoad(delayMs: number, env: Record<string, string>): Promise<[Device, Response]> {
  const device = await Device.start({ env: { STALL_TIMEOUT_MS: '5000', ...env } });
  await device.login();
  await device.upload('model', content);
  await device.clearCache();
  device.s3Proxy.fault = (request) =>
    request.headers.range?.startsWith('bytes=25165824') === true ? { kind: 'delay', ms: delayMs } : PASS;
  return [device, await device.loader.load('model')];
}

describe('the process', { skip: S3_SKIP }, () => {
  it('lets a load under way finish after SIGTERM, takes no new requests and exits with 0', async () => {
    const [device, loading] = await deviceWithSlowLoad(600, {});
    try {
      const body = digestBody(loading);
      device.loader.signal('SIGTERM');
      await sleep(100);
      await assert.rejects(fetch(`${device.loader.url}/health`));
      assert.equal((await body).sha256, sha256(content));
      assert.equal(await device.loader.exited(), 0);
    } finally {
      await device.stop();
    }
  });

  it('ends a load that takes longer than SHUTDOWN_TIMEOUT_MS, broken, and exits', async () => {
    const [device, loading] = await deviceWithSlowLoad(4000, { SHUTDOWN_TIMEOUT_MS: '300' });
    try {
      const body = assert.rejects(digestBody(loading));
      const startedAt = performance.now();
      device.loader.signal('SIGTERM');
      await body;
      assert.equal(await device.loader.exited(), 0);
      assert.ok(performance.now() - startedAt < 2500);
      assert.deepEqual(await device.unfinishedFiles(), []);
    } finally {
      await device.stop();
    }
  });

  it('exits at once at a second signal', async () => {
    const [device, loading] = await deviceWithSlowLoad(4000, {});
    try {
      const body = assert.rejects(digestBody(loading));
      device.loader.signal('SIGINT');
      await sleep(100);
      const startedAt = performance.now();
      device.loader.signal('SIGINT');
      assert.equal(await device.loader.exited(), 1);
      assert.ok(performance.now() - startedAt < 500);
      await body;
    } finally {
      await device.stop();
    }
  });

  it('tells all problems of its configuration at once, on stderr, and exits with 1', () => {
    const run = spawnSync(process.execPath, [MAIN], {
      env: {
        PORT: 'eighty',
        RESOURCE_API_URL: 'api.example.com',
        LOG_LEVEL: 'loud',
        RESOURCE_KEY_FILE: '/nonexistent',
      },
      encoding: 'utf8',
    });
    assert.equal(run.status, 1);
    for (const name of ['PORT', 'RESOURCE_API_URL', 'LOG_LEVEL', 'RESOURCE_KEY_FILE']) {
      assert.match(run.stderr, new RegExp(`- ${name}`));
    }
  });

  it('says so when its port is taken', async () => {
    const device = await Device.start();
    try {
      const run = spawnSync(process.execPath, [MAIN], { env: { PORT: String(device.loader.port) }, encoding: 'utf8' });
      assert.equal(run.status, 1);
      assert.match(run.stderr, /could not start.*EADDRINUSE/);
    } finally {
      await device.stop();
    }
  });
});
