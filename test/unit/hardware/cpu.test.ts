import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { nameCpu } from '../../../src/hardware/cpu.ts';
import { UntoldError } from '../../../src/hardware/untold-error.ts';

const ARM = 'processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n';
const X86 = 'processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7R13\n';
const MISSING = new UntoldError('lscpu is not installed');

describe('the name of the CPU', () => {
  for (const name of ['Cortex-A78AE', 'ARMv8 Processor rev 1 (v8l)', 'Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz']) {
    it(`is whole: ${name}`, () => {
      const { models } = nameCpu(ARM, `Vendor ID:  ARM\nModel name:   ${name} \nModel:   1\n`);
      assert.deepEqual(models, [name]);
    });
  }

  it('is that of lscpu, not of the BIOS, which only root sees', () => {
    const { models } = nameCpu(
      ARM,
      'Model name:  Neoverse-N1\n  BIOS Model name:  AWS Graviton2\nBIOS Model name: x\n',
    );
    assert.deepEqual(models, ['Neoverse-N1']);
  });

  it('is all names of cores of several kinds, in an order that does not depend on lscpu', () => {
    const { models } = nameCpu(ARM, 'Model name: Cortex-A76\n  Model name: Cortex-A55\nModel name: Cortex-A76\n');
    assert.deepEqual(models, ['Cortex-A55', 'Cortex-A76']);
  });

  it('leaves out kinds of cores that lscpu does not know', () => {
    assert.deepEqual(nameCpu(ARM, 'Model name: -\nModel name: Cortex-A76\n').models, ['Cortex-A76']);
  });

  it('is that of /proc/cpuinfo on x86 where lscpu is missing, since lscpu takes it from there', () => {
    const { models, untold, remark } = nameCpu(X86, MISSING);
    assert.deepEqual([models, untold], [['AMD EPYC 7R13'], undefined]);
    assert.equal(remark, "The CPU's name is that of /proc/cpuinfo, since lscpu is not installed");
  });

  for (const untoldName of ['', '-', 'unknown', 'Unknown']) {
    it(`is never "${untoldName}"`, () => {
      const lscpu = `Model name: ${untoldName}\n`;
      const { models, untold } = nameCpu(ARM, lscpu);
      assert.deepEqual([models, untold], [[], 'lscpu does not know this CPU: update util-linux']);
      assert.deepEqual(nameCpu(X86, lscpu).models, ['AMD EPYC 7R13']);
      assert.deepEqual(nameCpu(`vendor_id : x\nmodel name\t: ${untoldName}\n`, lscpu).models, []);
    });
  }

  it('is that of the board where lscpu does not know the CPU', () => {
    const board = 'Hardware\t: BCM2835\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n';
    assert.deepEqual(nameCpu(ARM + board, 'Architecture: aarch64\n').models, ['Raspberry Pi 4 Model B Rev 1.4']);
    assert.deepEqual(nameCpu('uarch : thead,c906\n', '').models, ['thead,c906']);
  });

  it('is not that of the board where lscpu is missing, which may know the CPU', () => {
    const { models, untold } = nameCpu(`${ARM}Model : Board\nmodel name : ARMv8 Processor rev 1 (v8l)\n`, MISSING);
    assert.deepEqual([models, untold], [[], 'lscpu is not installed']);
  });
});

describe('the IDs of the CPU', () => {
  it('are implementer and part of each kind of ARM core', () => {
    const cores = `${ARM}\nprocessor\t: 1\nCPU implementer\t: 0x41\nCPU part\t: 0xd05\n\n${ARM}`;
    assert.deepEqual(nameCpu(cores, MISSING).ids, ['0x41:0xd05', '0x41:0xd42']);
  });

  it('are none on x86, where the name comes from the CPU itself', () => {
    assert.deepEqual(nameCpu(X86, MISSING).ids, []);
  });
});
