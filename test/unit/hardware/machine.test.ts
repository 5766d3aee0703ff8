import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Machine } from '../../../src/hardware/machine.ts';
import { Board } from '../../support/board.ts';

const CARD = { class: '0x030000', vendor: '0x10de', device: '0x2204' };

let board: Board;

beforeEach(async () => {
  board = await Board.make({ cpuinfo: 'processor : 0\n' });
});

afterEach(async () => {
  await board[Symbol.asyncDispose]();
});

describe('this machine', () => {
  it('tells what the kernel says of CPU and memory', async () => {
    const machine = new Machine();
    assert.match(await machine.cpuinfo(), /^processor\s*: 0$/m);
    const totalKib = Number(/^MemTotal:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]);
    assert.equal(await machine.memoryBytes(), totalKib * 1024);
  });
});

describe('a program that tells about the hardware', () => {
  let folder: string;
  const machine = new Machine();
  const { PATH, LC_ALL } = process.env;

  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'loader-tool-'));
    process.env['PATH'] = folder;
    process.env['LC_ALL'] = 'fr_FR.UTF-8';
  });

  afterEach(async () => {
    process.env['PATH'] = PATH;
    if (LC_ALL === undefined) delete process.env['LC_ALL'];
    else process.env['LC_ALL'] = LC_ALL;
    await rm(folder, { recursive: true, force: true });
  });

  async function install(script: string): Promise<void> {
    await writeFile(path.join(folder, 'lscpu'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }

  it('is run with its options, and in the language that is parsed', async () => {
    await install('echo "$LC_ALL: $*"');
    assert.equal(await machine.toolOutput('lscpu', '-a -b'), 'C: -a -b\n');
  });

  it('that is not there is told with its package', async () => {
    const error = { name: 'UntoldError', message: 'lscpu is not installed: install the package util-linux' };
    await assert.rejects(machine.toolOutput('lscpu'), error);
    await assert.rejects(machine.toolOutput('lspci'), { message: /package pciutils$/ });
  });

  it('that fails is told, also when it has printed something', async () => {
    await install('echo "Model name: half"; exit 1');
    await assert.rejects(machine.toolOutput('lscpu'), {
      name: 'UntoldError',
      message: /^lscpu failed: run it in a shell/,
    });
  });

  it('that prints without an end is ended', async () => {
    await install('while :; do echo "Model name: AMD EPYC 7R13, for ever and ever"; done');
    await assert.rejects(machine.toolOutput('lscpu'), { name: 'UntoldError', message: /^lscpu failed/ });
  });

  it('that hangs is ended, even if what it has started holds its output', async (context) => {
    await install('/bin/sleep 1000 & echo $! >"${0%/*}/pid"; wait');
    const timeout = AbortSignal.timeout.bind(AbortSignal);
    context.mock.method(AbortSignal, 'timeout', () => timeout(300));
    await assert.rejects(machine.toolOutput('lscpu'), {
      name: 'UntoldError',
      message: /^lscpu did not end within 10 s/,
    });
    process.kill(Number(await readFile(path.join(folder, 'pid'), 'utf8')));
  });
});

describe('the devices that a machine tells of', () => {
  it('are all on PCI by address, each with what the kernel tells of it', async () => {
    await board.setDevices({ pci: { '0000:02:00.0': CARD, '0000:01:00.0': CARD } });
    await rm(path.join(board.sysRoot, 'bus/pci/devices/0000:02:00.0/vendor'));
    assert.deepEqual(await board.machine.pciDevices(), [
      { address: '0000:01:00.0', ...CARD },
      { address: '0000:02:00.0', ...CARD, vendor: undefined },
    ]);
  });

  it('are all block devices by name, with the path that shows their bus', async () => {
    const files = { removable: '0', serial: 'a', 'device/serial': 'b', 'device/vpd_pg80': Buffer.from('\n c \n') };
    await board.setDevices({
      pci: null,
      disks: [
        { name: 'sdb', files: {} },
        { name: 'sda', bus: 'usb1', files },
      ],
    });
    const [sda, sdb] = await board.machine.blockDevices();
    const pathOf = (bus: string, name: string) => path.join(board.sysRoot, 'devices', bus, 'block', name);
    assert.deepEqual(sda, {
      name: 'sda',
      realPath: pathOf('usb1', 'sda'),
      removable: '0',
      serial: 'a',
      deviceSerial: 'b',
      vpdPage: Buffer.from('\n c \n'),
    });
    assert.deepEqual([sdb?.name, sdb?.serial, sdb?.vpdPage], ['sdb', undefined, undefined]);
  });

  it('are none where the kernel has no such folder', async () => {
    await board.setDevices({ pci: null });
    await rm(path.join(board.sysRoot, 'block'), { recursive: true });
    assert.deepEqual([await board.machine.pciDevices(), await board.machine.blockDevices()], [[], []]);
  });

  it('are not told without a sysfs, which is no machine without devices', async () => {
    const assertUntold = async () => {
      const error = { name: 'UntoldError', message: /mount a sysfs/ };
      await assert.rejects(board.machine.pciDevices(), error);
      await assert.rejects(board.machine.blockDevices(), error);
    };
    await assertUntold();
    await rm(board.sysRoot, { recursive: true });
    await assertUntold();
  });

  it('are not told when an attribute is there but can not be read', async () => {
    await board.setDevices({ pci: null, disks: [{ name: 'sda', files: { removable: '0' } }] });
    await mkdir(path.join(board.sysRoot, 'block/sda/serial'));
    await assert.rejects(board.machine.blockDevices(), { code: 'EISDIR' });
  });
});
