import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { openAsBlob } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Device } from '../../support/device.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';

const MIB = 1024 * 1024;
const SIZES = [0, 1, 15, 16, 17, ...range(3055, 3090), ...range(10_223, 10_260), 5 * MIB - 1, 5 * MIB, 5 * MIB + 1];

describe('a round trip', { skip: S3_SKIP }, () => {
  let device: Device;
  before(async () => {
    device = await Device.start({ env: { LOG_LEVEL: 'info' } });
    await device.login();
  });
  after(() => device.stop());

  for (const size of [...SIZES, 64 * MIB]) {
    it(`gives back ${size} bytes exactly, from the cache and from the CDN`, async () => {
      const content = randomBytes(size);
      await device.upload('model', content);
      await expectLoads(size, sha256(content));
      await device.clearCache();
      await expectLoads(size, sha256(content));
      await expectLoads(size, sha256(content));
    });
  }

  it('gives back 2 GB exactly, across the limits of 31 and 32 bits', { timeout: 240_000 }, async () => {
    const length = 2 ** 31 + 5;
    const filePath = path.join(device.folder, 'large');
    const digest = await writeLargeFile(filePath, length);
    assert.equal((await device.loader.upload('large', await openAsBlob(filePath))).status, 200);
    await rm(filePath);
    await expectLoads(length, digest, 'large');
    await device.clearCache();
    await expectLoads(length, digest, 'large');
  });

  it('leaves nothing unfinished behind', async () => {
    await device.settled(); // The digests of a copy are made when nobody waits any more.
    assert.deepEqual(await device.pendingUploads(), []);
  });

  async function expectLoads(length: number, digest: string, name = 'model'): Promise<void> {
    const response = await device.loader.load(name);
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('content-length'), String(length));
    assert.equal(response.headers.get('content-type'), 'application/octet-stream');
    assert.deepEqual(await digestBody(response), { length, sha256: digest });
  }
});

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

/** Random bytes, repeated with a counter, since two billion fresh ones take long. */
async function writeLargeFile(filePath: string, length: number): Promise<string> {
  const hash = createHash('sha256');
  const block = randomBytes(8 * MIB);
  const file = await open(filePath, 'w');
  for (let written = 0; written < length;) {
    block.writeBigUInt64LE(BigInt(written));
    const chunk = block.subarray(0, Math.min(block.length, length - written));
    hash.update(chunk);
    await file.write(chunk);
    written += chunk.length;
  }
  await file.close();
  return hash.digest('hex');
}
