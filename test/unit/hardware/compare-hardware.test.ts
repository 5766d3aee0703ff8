import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { compareHardware } from '../../../src/hardware/compare-hardware.ts';
import type { Fact, HardwareFacts } from '../../../src/hardware/hardware-facts.ts';

const GIB = 1024 ** 3;
const KEPT: HardwareFacts = {
  cpu: { ids: ['0x4e:0x004'], models: ['ARMv8 Processor rev 0 (v8l)'] },
  gpu: { ids: ['0x10de:0x2e12'], models: ['Device 2e12'] },
  memoryBytes: 31.4 * GIB,
  driveSerials: ['A', 'B'],
};

/** The difference of `KEPT` with `change` to what is read now: the names of facts, with a ! where it is real. */
function differences(change: Partial<HardwareFacts>, untold: readonly Fact[] = [], kept: Partial<HardwareFacts> = {}) {
  const reading = { facts: { ...KEPT, ...change }, untold: new Map(untold.map((fact) => [fact, 'why'])), remarks: [] };
  const { byItself, real } = compareHardware({ ...KEPT, ...kept }, reading);
  return [...byItself, ...real.map((fact) => `${fact}!`)].join();
}

describe('the same machine', () => {
  it('may have the same facts', () => assert.equal(differences({}), ''));

  it('may get another name for the same IDs', () => {
    assert.equal(differences({ cpu: { ids: ['0x4e:0x004'], models: ['Carmel'] } }), 'CPU');
    assert.equal(differences({ gpu: { ids: ['0x10de:0x2e12'], models: ['GB20B [GB10]'] } }), 'GPU');
  });

  it('may lose the names of the same IDs, when a program is missing', () => {
    const cpu = { ...KEPT.cpu, models: [] };
    const gpu = { ...KEPT.gpu, models: [] };
    assert.equal(differences({ cpu, gpu }, ['CPU', 'GPU']), 'CPU,GPU');
  });

  it('may have less or more memory, by less than 1 GiB', () => {
    assert.equal(differences({ memoryBytes: 31.3 * GIB }), '');
    assert.equal(differences({ memoryBytes: 31.6 * GIB }), 'Memory');
    assert.equal(differences({ memoryBytes: 30.45 * GIB }), 'Memory');
    assert.equal(differences({ memoryBytes: 32.39 * GIB }), 'Memory');
  });

  it('may have its disks in another order, and other disks before the kept one', () => {
    assert.equal(differences({ driveSerials: ['B', 'A'] }), 'DriveSerial');
    assert.equal(differences({ driveSerials: ['C', null, 'A'] }), 'DriveSerial');
    assert.equal(differences({ driveSerials: ['A'] }), '');
    assert.equal(differences({ driveSerials: ['B', null] }, [], { driveSerials: [null, 'B'] }), 'DriveSerial');
  });
});

describe('another machine', () => {
  it('has other IDs, with whatever name', () => {
    assert.equal(differences({ cpu: { ids: ['0x41:0xd42'], models: ['Cortex-A78AE'] } }), 'CPU!');
    assert.equal(differences({ gpu: { ids: ['0x10de:0x2204'], models: ['GA102'] } }), 'GPU!');
    assert.equal(differences({ gpu: { ids: ['0x10de:0x2204'], models: [] } }, ['GPU']), 'GPU!');
    assert.equal(differences({ gpu: { ids: [], models: [] } }), 'GPU!');
    const two = { ids: ['0x10de:0x2204', '0x10de:0x2e12'], models: ['Device 2e12', 'GA102'] };
    assert.equal(differences({ gpu: two }), 'GPU!');
  });

  it('has another name where there are no IDs', () => {
    const intel = { ids: [], models: ['Intel(R) Core(TM) i7-8700'] };
    const amd = { ids: [], models: ['AMD EPYC 7R13'] };
    assert.equal(differences({ cpu: amd }, [], { cpu: intel }), 'CPU!');
  });

  it('has 1 GiB of memory more or less', () => {
    assert.equal(differences({ memoryBytes: 32.4 * GIB }, [], { memoryBytes: 31.4 * GIB }), 'Memory!');
    assert.equal(differences({ memoryBytes: 8 * GIB }), 'Memory!');
  });

  it('lacks the disk', () => {
    assert.equal(differences({ driveSerials: ['B'] }), 'DriveSerial!');
    assert.equal(differences({ driveSerials: [] }), 'DriveSerial!');
    assert.equal(differences({ driveSerials: ['C', null] }, [], { driveSerials: [null, 'B'] }), 'DriveSerial!');
  });
});

describe('several changes', () => {
  it('are each told', () => {
    const change = { memoryBytes: 31.6 * GIB, driveSerials: ['C'], gpu: { ids: ['0x10de:0x2e12'], models: ['GB10'] } };
    assert.equal(differences(change), 'GPU,Memory,DriveSerial!');
  });
});
