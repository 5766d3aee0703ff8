import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatHardwareString, sortedSet, type HardwareFacts } from '../../../src/hardware/hardware-facts.ts';

const GIB = 1024 ** 3;
const FACTS: HardwareFacts = {
  cpu: { ids: ['0x41:0xd42'], models: ['Cortex-A78AE'] },
  gpu: { ids: ['0x10de:0x2204'], models: ['GA102 [GeForce RTX 3090]'] },
  memoryBytes: 32 * GIB,
  driveSerials: ['S4X7NF0M', 'WD-1234'],
};

describe('the hardware string', () => {
  it('has the form of the protocol', () =>
    assert.equal(
      formatHardwareString(FACTS),
      'CPU: Cortex-A78AE. GPU: GA102 [GeForce RTX 3090]. Memory: 32 GiB. DriveSerial: S4X7NF0M',
    ));

  it('joins several models by commas', () => {
    const text = formatHardwareString({
      ...FACTS,
      cpu: { ids: [], models: ['Cortex-A55', 'Cortex-A76'] },
      gpu: { ids: [], models: ['Alpha', 'Zeta'] },
    });
    assert.equal(text, 'CPU: Cortex-A55, Cortex-A76. GPU: Alpha, Zeta. Memory: 32 GiB. DriveSerial: S4X7NF0M');
  });

  it('says none for no graphics card, no disk, and a first disk without a serial', () => {
    assert.match(formatHardwareString({ ...FACTS, gpu: { ids: [], models: [] } }), /GPU: none\./);
    assert.match(formatHardwareString({ ...FACTS, driveSerials: [] }), /DriveSerial: none$/);
    assert.match(formatHardwareString({ ...FACTS, driveSerials: [null, 'WD-1234'] }), /DriveSerial: none$/);
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

describe('a sorted set', () => {
  it('is the same in whatever order it is given, and has each text once', () => {
    const texts = ['B', 'a', 'A', 'B', 'C'];
    assert.deepEqual(sortedSet(texts), ['A', 'B', 'C', 'a']);
    assert.deepEqual(sortedSet(texts.toReversed()), sortedSet(texts));
  });
});
