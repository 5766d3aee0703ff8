import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { HardwareFacts } from '../../../src/hardware/hardware-facts.ts';
import { formatHardwareString, HardwareFingerprint } from '../../../src/hardware/hardware-fingerprint.ts';

const GIB = 1024 ** 3;
const FACTS: HardwareFacts = {
  cpuModel: 'Cortex-A78AE',
  gpuModels: ['Orin'],
  memoryBytes: 32 * GIB,
  driveSerial: 'S4X7NF0M',
};

describe('the hardware string', () => {
  it('has the form of the protocol', () =>
    assert.equal(formatHardwareString(FACTS), 'CPU: Cortex-A78AE. GPU: Orin. Memory: 32 GiB. DriveSerial: S4X7NF0M'));

  it('has its GPUs unique, sorted and joined by commas', () => {
    const text = formatHardwareString({ ...FACTS, gpuModels: ['Zeta', ' Alpha', 'Zeta', '', 'Alpha ', 'Mid'] });
    assert.equal(text, 'CPU: Cortex-A78AE. GPU: Alpha, Mid, Zeta. Memory: 32 GiB. DriveSerial: S4X7NF0M');
  });

  it('is the same in whatever order the GPUs are listed', () => {
    const gpuModels = ['B', 'a', 'A', 'C'];
    assert.equal(
      formatHardwareString({ ...FACTS, gpuModels }),
      formatHardwareString({ ...FACTS, gpuModels: gpuModels.toReversed() }),
    );
  });

  it('says none for no GPU, or one without a name', () => {
    assert.match(formatHardwareString({ ...FACTS, gpuModels: [] }), /GPU: none\./);
    assert.match(formatHardwareString({ ...FACTS, gpuModels: ['  '] }), /GPU: none\./);
  });

  it('says none for no drive serial', () => {
    assert.match(formatHardwareString({ ...FACTS, driveSerial: undefined }), /DriveSerial: none$/);
  });

  for (const [bytes, gib] of [
    [31.4 * GIB, 31],
    [31.5 * GIB, 32],
    [32 * GIB + 1, 32],
    [32 * GIB - 1, 32],
    [0.4 * GIB, 0],
  ] as const) {
    it(`rounds ${bytes} bytes of memory to ${gib} GiB`, () => {
      assert.match(formatHardwareString({ ...FACTS, memoryBytes: bytes }), new RegExp(`Memory: ${gib} GiB\\.`));
    });
  }
});

describe('HardwareFingerprint', () => {
  it('reads the hardware once and keeps the string', async () => {
    let reads = 0;
    const fingerprint = new HardwareFingerprint(undefined, () => {
      reads++;
      return Promise.resolve(FACTS);
    });
    assert.equal(reads, 0);
    assert.equal(await fingerprint.hardwareString(), formatHardwareString(FACTS));
    assert.equal(await fingerprint.hardwareString(), formatHardwareString(FACTS));
    assert.equal(reads, 1);
  });

  it('shares one read among concurrent callers', async () => {
    let reads = 0;
    const { promise, resolve } = Promise.withResolvers<HardwareFacts>();
    const fingerprint = new HardwareFingerprint(undefined, () => {
      reads++;
      return promise;
    });
    const callers = Promise.all(Array.from({ length: 20 }, () => fingerprint.hardwareString()));
    resolve(FACTS);
    assert.equal(new Set(await callers).size, 1);
    assert.equal(reads, 1);
  });

  it('reads again after a failure, of which all who waited are told', async () => {
    let reads = 0;
    const cause = new Error('no sysfs');
    const fingerprint = new HardwareFingerprint(undefined, () => {
      reads++;
      return reads === 1 ? Promise.reject(cause) : Promise.resolve(FACTS);
    });
    const results = await Promise.allSettled([fingerprint.hardwareString(), fingerprint.hardwareString()]);
    for (const result of results) {
      assert.equal(result.status, 'rejected');
      const error: unknown = result.reason;
      assert.ok(error instanceof Error && 'code' in error && error.code === 'hardware_unreadable');
      assert.equal(error.cause, cause);
    }
    assert.equal(reads, 1);
    assert.equal(await fingerprint.hardwareString(), formatHardwareString(FACTS));
    assert.equal(reads, 2);
  });

  it('is replaced as a whole by HARDWARE_ID, and reads nothing then', async () => {
    const fingerprint = new HardwareFingerprint('device 7', () => Promise.reject(new Error('it was read')));
    assert.equal(await fingerprint.hardwareString(), 'device 7');
  });
});
