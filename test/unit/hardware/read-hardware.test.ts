import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'node:test';
import { Machine } from '../../../src/hardware/machine.ts';
import { readHardware } from '../../../src/hardware/read-hardware.ts';
import { UntoldError } from '../../../src/hardware/untold-error.ts';
import { Board, type FakeDevices } from '../../support/board.ts';

const ARM = 'processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n';
const LSCPU = 'Model name: Cortex-A78AE\n';
const CARD: FakeDevices = { pci: { '0000:01:00.0': { class: '0x030000', vendor: '0x10de', device: '0x2204' } } };
const LSPCI = 'Slot:\t0000:01:00.0\nDevice:\tGA102 [GeForce RTX 3090]\n\n';

describe('reading the hardware', () => {
  it('tells CPU and memory of this machine, twice the same', async () => {
    await using board = await Board.open('jetson-agx-orin');
    const machine = new Machine({ sysRoot: board.sysRoot });
    const { facts } = await readHardware(machine);
    assert.equal(facts.memoryBytes, await machine.memoryBytes());
    assert.deepEqual((await readHardware(machine)).facts, facts);
  });

  it('names each fact that could not be read, and what to do', async () => {
    await using board = await Board.open('container-without-sysfs');
    await rm(path.join(board.procRoot, 'cpuinfo'));
    board.memoryBytes = 0;
    await assert.rejects(board.read(), {
      code: 'hardware_unreadable',
      message: new RegExp(
        '^The hardware of this machine could not be read\\. CPU: the system refused it; .*' +
          'GPU: .*mount a sysfs.* Memory: .*MemTotal.* DriveSerial: .*mount a sysfs.* ' +
          'Or set HARDWARE_ID to a string that stays the same\\.$',
      ),
    });
  });

  it('runs each program once where it tells all, and lspci only where there is a card', async () => {
    await using board = await Board.make({ cpuinfo: ARM, devices: CARD });
    board.outputs.set('lscpu', LSCPU).set('lspci', LSPCI);
    const { facts } = await board.read();
    assert.deepEqual(facts.gpu, { ids: ['0x10de:0x2204'], models: ['GA102 [GeForce RTX 3090]'] });
    assert.deepEqual(board.runs.toSorted(), ['lscpu', 'lspci']);
    board.runs.length = 0;
    await board.setDevices({ pci: {} });
    assert.deepEqual((await board.read()).facts.gpu, { ids: [], models: [] });
    assert.deepEqual(board.runs, ['lscpu']);
  });

  for (const [what, lscpu] of [
    ['is missing', undefined],
    ['has no name', 'Model name: -\n'],
  ] as const) {
    it(`runs a program once more that ${what}, and no third time`, async () => {
      await using board = await Board.make({ cpuinfo: ARM, devices: CARD });
      if (lscpu !== undefined) board.outputs.set('lscpu', lscpu);
      const { untold } = await board.read();
      assert.deepEqual([...untold.keys()], ['CPU', 'GPU']);
      assert.deepEqual(board.runs.toSorted(), ['lscpu', 'lscpu', 'lspci', 'lspci']);
    });
  }

  for (const methods of [['cpuinfo', 'pciDevices', 'blockDevices', 'memoryBytes'], ['toolOutput']] as const) {
    it(`takes what ${methods.join()} can tell the second time only`, async (context) => {
      await using board = await Board.make({ cpuinfo: ARM, devices: CARD });
      board.outputs.set('lscpu', LSCPU).set('lspci', LSPCI);
      const { machine } = board;
      for (const method of methods) {
        context.mock.method(machine, method, () => Promise.reject(new UntoldError('not yet')), { times: 1 });
      }
      assert.deepEqual(await readHardware(machine, 0), {
        facts: {
          cpu: { ids: ['0x41:0xd42'], models: ['Cortex-A78AE'] },
          gpu: { ids: ['0x10de:0x2204'], models: ['GA102 [GeForce RTX 3090]'] },
          memoryBytes: 1024 ** 3,
          driveSerials: [],
        },
        untold: new Map(),
        remarks: [],
      });
    });
  }

  it('tells a person when the name of the CPU is not that of lscpu', async () => {
    await using board = await Board.open('container-without-tools');
    const { remarks } = await board.read();
    assert.deepEqual(remarks, ["The CPU's name is that of /proc/cpuinfo, since lscpu is not installed"]);
  });
});
