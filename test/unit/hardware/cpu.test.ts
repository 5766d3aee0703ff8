import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readCpu } from '../../../src/hardware/read-hardware.ts';
import { Board } from '../../support/board.ts';

const ARM = 'processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n';
const X86 = 'processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7R13\n';

/** Reads the CPU of a board with this cpuinfo and this output of lscpu; undefined if it is not installed. */
async function read(cpuinfo: string, lscpu: string | undefined) {
  await using board = await Board.make({ cpuinfo });
  if (lscpu !== undefined) board.outputs.set('lscpu', lscpu);
  return { ...(await readCpu(board.sources)), runs: board.runs.length };
}

describe('the name of the CPU', () => {
  for (const name of ['Cortex-A78AE', 'ARMv8 Processor rev 1 (v8l)', 'Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz']) {
    it(`is whole: ${name}`, async () => {
      const { models, runs } = await read(ARM, `Vendor ID:  ARM\nModel name:   ${name} \nModel:   1\n`);
      assert.deepEqual([models, runs], [[name], 1]);
    });
  }

  it('is that of lscpu, not of the BIOS, which only root sees', async () => {
    const { models } = await read(
      ARM,
      'Model name:  Neoverse-N1\n  BIOS Model name:  AWS Graviton2\nBIOS Model name: x\n',
    );
    assert.deepEqual(models, ['Neoverse-N1']);
  });

  it('is all names of cores of several kinds, in an order that does not depend on lscpu', async () => {
    const { models } = await read(ARM, 'Model name: Cortex-A76\n  Model name: Cortex-A55\nModel name: Cortex-A76\n');
    assert.deepEqual(models, ['Cortex-A55', 'Cortex-A76']);
  });

  it('leaves out kinds of cores that lscpu does not know', async () => {
    assert.deepEqual((await read(ARM, 'Model name: -\nModel name: Cortex-A76\n')).models, ['Cortex-A76']);
  });

  it('is that of /proc/cpuinfo on x86 where lscpu is missing, since lscpu takes it from there', async () => {
    const { models, untold, remark, runs } = await read(X86, undefined);
    assert.deepEqual([models, untold, runs], [['AMD EPYC 7R13'], undefined, 2]);
    assert.equal(remark, "The CPU's name is that of /proc/cpuinfo, since lscpu is not installed");
  });

  for (const untoldName of ['', '-', 'unknown', 'Unknown']) {
    it(`is never "${untoldName}"`, async () => {
      const lscpu = `Model name: ${untoldName}\n`;
      const { models, untold, runs } = await read(ARM, lscpu);
      assert.deepEqual([models, untold, runs], [[], 'lscpu does not know this CPU: update util-linux', 2]);
      assert.deepEqual((await read(X86, lscpu)).models, ['AMD EPYC 7R13']);
      assert.deepEqual((await read(`vendor_id : x\nmodel name\t: ${untoldName}\n`, lscpu)).models, []);
    });
  }

  it('is that of the board where lscpu does not know the CPU', async () => {
    const board = 'Hardware\t: BCM2835\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n';
    assert.deepEqual((await read(ARM + board, 'Architecture: aarch64\n')).models, ['Raspberry Pi 4 Model B Rev 1.4']);
    assert.deepEqual((await read('uarch : thead,c906\n', '')).models, ['thead,c906']);
  });

  it('is not that of the board where lscpu is missing, which may know the CPU', async () => {
    const { models, untold } = await read(`${ARM}Model : Board\nmodel name : ARMv8 Processor rev 1 (v8l)\n`, undefined);
    assert.deepEqual([models, untold], [[], 'lscpu is not installed']);
  });

  it('is asked for once more when lscpu fails', async () => {
    await using board = await Board.make({ cpuinfo: ARM });
    const { runTool } = board.sources;
    const sources = {
      ...board.sources,
      runTool: async (tool: 'lscpu' | 'lspci') => {
        const output = runTool(tool);
        board.outputs.set('lscpu', 'Model name: Cortex-A78AE\n');
        return await output;
      },
    };
    assert.deepEqual(await readCpu(sources), { ids: ['0x41:0xd42'], models: ['Cortex-A78AE'] });
    assert.equal(board.runs.length, 2);
  });
});

describe('the IDs of the CPU', () => {
  it('are implementer and part of each kind of ARM core', async () => {
    const cores = `${ARM}\nprocessor\t: 1\nCPU implementer\t: 0x41\nCPU part\t: 0xd05\n\n${ARM}`;
    assert.deepEqual((await read(cores, undefined)).ids, ['0x41:0xd05', '0x41:0xd42']);
  });

  it('are none on x86, where the name comes from the CPU itself', async () => {
    assert.deepEqual((await read(X86, undefined)).ids, []);
  });
});
