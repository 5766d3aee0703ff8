import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { Device } from '../../support/device.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';

const MIB = 1024 * 1024;
/** A run of the tests takes many parts and ranges, the campaign (npm run test:large) is across the limits of 31 and 32 bits. */
const LARGE_LENGTH = Number(process.env['LOADER_TEST_LARGE_BYTES'] ?? 200 * MIB + 5);
const SIZES = [0, 1, 15, 16, 17, ...range(3055, 3073), ...range(10_223, 10_241), 5 * MIB - 1, 5 * MIB, 5 * MIB + 1];

describe('a round trip', { skip: S3_SKIP }, () => {
  let device: Device;
  before(async () => {
    device = await Device.start({
      env: { LOG_LEVEL: 'info', STALL_TIMEOUT_MS: '20000', UPSTREAM_TIMEOUT_MS: '20000' },
    });
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

  it(`gives back ${LARGE_LENGTH} bytes exactly`, { timeout: 900_000 }, async () => {
    const length = LARGE_LENGTH;
    const { content, digest } = makeLargeContent(length);
    assert.equal((await device.loader.upload('large', content)).status, 200);
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

/** Random bytes again and again: no file, and no memory for all of them. Their period is that of no chunk of the Loader. */
function makeLargeContent(length: number): { content: Blob; digest: string } {
  const bytes = randomBytes(8 * MIB - 15);
  const period = new Blob([bytes]);
  const hash = createHash('sha256');
  const parts: Blob[] = [];
  for (let left = length; left > 0; left -= bytes.length) {
    hash.update(bytes.subarray(0, Math.min(left, bytes.length)));
    parts.push(left < bytes.length ? period.slice(0, left) : period);
  }
  return { content: new Blob(parts), digest: hash.digest('hex') };
}
