import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { describe, it } from 'node:test';
import { formatHardwareString } from '../../../src/hardware/hardware-facts.ts';
import { Board, BOARDS_FOLDER } from '../../support/board.ts';

/** The whole string of each board. */
const STRINGS: Readonly<Record<string, string>> = {
  'amd-ryzen-embedded':
    'CPU: AMD Ryzen Embedded V1605B with Radeon Vega Gfx. ' +
    'GPU: Raven Ridge [Radeon Vega Series / Radeon Vega Mobile Series]. Memory: 15 GiB. DriveSerial: 50026B7600000008',
  'container-without-tools':
    'CPU: Intel(R) Core(TM) i5-7260U CPU @ 2.20GHz. GPU: none. Memory: 15 GiB. DriveSerial: S3Z9NB0K700007',
  'imx8m-plus': 'CPU: Cortex-A53. GPU: none. Memory: 6 GiB. DriveSerial: 0x21f8d0aa',
  'intel-nuc':
    'CPU: Intel(R) Core(TM) i5-7260U CPU @ 2.20GHz. ' +
    'GPU: Iris Plus Graphics 640. Memory: 15 GiB. DriveSerial: S3Z9NB0K700007',
  'jetson-agx-orin': 'CPU: Cortex-A78AE. GPU: none. Memory: 30 GiB. DriveSerial: 0x2a6dff3c',
  'jetson-agx-xavier': 'CPU: ARMv8 Processor rev 0 (v8l). GPU: none. Memory: 31 GiB. DriveSerial: 0x89d03f11',
  'jetson-nano': 'CPU: Cortex-A57. GPU: none. Memory: 4 GiB. DriveSerial: 0x1f9a05b2',
  'orange-pi-5-old-lscpu': 'CPU: Cortex-A55. GPU: none. Memory: 15 GiB. DriveSerial: 0x3fa2b6c1',
  'orange-pi-5-unnamed-cores': 'CPU: Rockchip RK3588. GPU: none. Memory: 8 GiB. DriveSerial: 0x3fa2b6c1',
  'raspberry-pi-3-32bit': 'CPU: Cortex-A53. GPU: none. Memory: 1 GiB. DriveSerial: 0x00f1e2d3',
  'raspberry-pi-4': 'CPU: Cortex-A72. GPU: none. Memory: 4 GiB. DriveSerial: 0x5c0cb7a1',
  'raspberry-pi-5': 'CPU: Cortex-A76. GPU: none. Memory: 8 GiB. DriveSerial: 0x7b1a9c0d',
  'rock-5b-rk3588': 'CPU: Cortex-A55, Cortex-A76. GPU: none. Memory: 15 GiB. DriveSerial: 0x0d2c6b21',
  'visionfive-2-riscv': 'CPU: sifive,u74-mc. GPU: none. Memory: 8 GiB. DriveSerial: 0x44c1e0f2',
  'vm-aws-graviton2': 'CPU: Neoverse-N1. GPU: Device 1111. Memory: 8 GiB. DriveSerial: vol0123456789abcdef0',
  'vm-hyper-v':
    'CPU: Intel(R) Xeon(R) Platinum 8272CL CPU @ 2.60GHz. ' +
    'GPU: Hyper-V virtual VGA. Memory: 8 GiB. DriveSerial: 60022480a1b2c3d4e5f60718293a4b5c',
  'vm-qemu-standard-vga':
    'CPU: QEMU Virtual CPU version 2.5+. GPU: Device 1111. Memory: 4 GiB. DriveSerial: drive-scsi0',
  'vm-without-display': 'CPU: AMD EPYC. GPU: none. Memory: 24 GiB. DriveSerial: none',
  'x86-epyc-two-equal-gpus':
    'CPU: AMD EPYC 7302P 16-Core Processor. ' +
    'GPU: ASPEED Graphics Family, GA102 [GeForce RTX 3090]. Memory: 500 GiB. DriveSerial: PHLN000000500005',
  'x86-intel-and-nvidia':
    'CPU: 12th Gen Intel(R) Core(TM) i9-12900K. ' +
    'GPU: AlderLake-S GT1, GA102 [GeForce RTX 3080 Ti]. Memory: 63 GiB. DriveSerial: S4X7NF0M400004',
};

/** The boards on which a fact can't be told, with the facts whose names are missing. */
const WITHOUT_NAMES: Readonly<Record<string, readonly string[]>> = {
  'container-without-tools-on-arm': ['CPU'],
  'container-without-tools-with-gpu': ['GPU'],
  'vm-arm-that-hides-its-cpu': ['CPU'],
};

describe('the hardware string', () => {
  for (const [name, expected] of Object.entries(STRINGS)) {
    it(`of ${name} is whole`, async () => {
      await using board = await Board.open(name);
      const { facts, untold } = await board.read();
      assert.deepEqual([...untold], []);
      assert.equal(formatHardwareString(facts), expected);
    });
  }

  for (const [name, expected] of Object.entries(WITHOUT_NAMES)) {
    it(`of ${name} is not made, since ${expected.join()} has no name`, async () => {
      await using board = await Board.open(name);
      const { untold } = await board.read();
      assert.deepEqual([...untold.keys()], expected);
    });
  }

  it('of a container without sysfs is not made, since neither cards nor disks can be told', async () => {
    await using board = await Board.open('container-without-sysfs');
    await assert.rejects(board.read(), {
      code: 'hardware_unreadable',
      message: /^The hardware .* GPU: \S+ shows no devices: .* DriveSerial: \S+ shows no devices: .* set HARDWARE_ID /,
    });
  });

  it('is tried with every fixture', () => {
    const tried = [...Object.keys(STRINGS), ...Object.keys(WITHOUT_NAMES), 'container-without-sysfs'];
    assert.deepEqual(
      readdirSync(BOARDS_FOLDER).filter((name) => !name.endsWith('.md')),
      tried.sort(),
    );
  });
});
