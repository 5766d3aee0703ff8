import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readGraphics } from '../../../src/hardware/read-hardware.ts';
import { Board, type PciDevice } from '../../support/board.ts';

const NVIDIA: PciDevice = { class: '0x030000', vendor: '0x10de', device: '0x2204' };
const INTEL: PciDevice = { class: '0x038000', vendor: '0x8086', device: '0x4680' };
const DISK: PciDevice = { class: '0x010802', vendor: '0x144d', device: '0xa80a' };
const record = (slot: string, device: string) =>
  `Slot:\t${slot}\nClass:\tVGA compatible controller\nVendor:\tNVIDIA Corporation\nDevice:\t${device}\n` +
  'SVendor:\tGigabyte Technology Co., Ltd\nSDevice:\tDevice 4043\nRev:\ta1\n\n';

/** Reads the cards of a board with these devices, and this output of lspci; undefined if it is not installed. */
async function read(pci: Readonly<Record<string, PciDevice>> | null, lspci?: string) {
  await using board = await Board.make({ devices: { pci } });
  if (lspci !== undefined) board.outputs.set('lspci', lspci);
  return { ...(await readGraphics(board.sources)), runs: board.runs.length };
}

describe('the graphics cards', () => {
  it('are those of the kernel, with the names of lspci', async () => {
    const pci = { '0000:00:02.0': INTEL, '000f:01:00.0': NVIDIA, '0000:02:00.0': DISK };
    const lspci =
      record('0000:00:02.0', 'AlderLake-S GT1') +
      record('000f:01:00.0', 'GA102 [GeForce RTX 3090]') +
      record('0000:02:00.0', 'NVMe SSD Controller PM9A1');
    assert.deepEqual(await read(pci, lspci), {
      ids: ['0x10de:0x2204', '0x8086:0x4680'],
      models: ['AlderLake-S GT1', 'GA102 [GeForce RTX 3090]'],
      runs: 1,
    });
  });

  it('are none where the kernel has none, whatever lspci prints, and without asking it', async () => {
    const none = { ids: [], models: [], runs: 0 };
    assert.deepEqual(await read({ '0000:02:00.0': DISK }, record('0000:01:00.0', 'GA102')), none);
    assert.deepEqual(await read({ '0000:02:00.0': DISK }), none);
    assert.deepEqual(await read({}), none);
  });

  it('are none where the kernel has no PCI', async () => {
    assert.deepEqual(await read(null), { ids: [], models: [], runs: 0 });
  });

  it('have no names, but stay, where lspci is missing', async () => {
    assert.deepEqual(await read({ '0000:01:00.0': NVIDIA }), {
      ids: ['0x10de:0x2204'],
      models: [],
      untold: 'lspci is not installed',
      runs: 2,
    });
  });

  it('have no names where lspci leaves out one of them', async () => {
    const { models, untold } = await read(
      { '0000:00:02.0': INTEL, '0000:01:00.0': NVIDIA },
      record('0000:00:02.0', 'AlderLake-S GT1') + record('0000:01:00.0', ''),
    );
    assert.deepEqual(models, []);
    assert.match(untold ?? '', /^lspci does not list the card at 0000:01:00\.0/);
  });

  it('are not told without a sysfs', async () => {
    await using board = await Board.make({});
    await assert.rejects(readGraphics(board.sources), { name: 'UntoldError' });
  });
});
