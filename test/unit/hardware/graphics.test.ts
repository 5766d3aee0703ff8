import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { graphicsCards, nameGraphics, type PciDevice } from '../../../src/hardware/graphics.ts';
import { UntoldError } from '../../../src/hardware/untold-error.ts';

const NVIDIA = { class: '0x030000', vendor: '0x10de', device: '0x2204' };
const INTEL = { class: '0x038000', vendor: '0x8086', device: '0x4680' };
const DISK = { class: '0x010802', vendor: '0x144d', device: '0xa80a' };
const record = (slot: string, device: string) =>
  `Slot:\t${slot}\nClass:\tVGA compatible controller\nVendor:\tNVIDIA Corporation\nDevice:\t${device}\n` +
  'SVendor:\tGigabyte Technology Co., Ltd\nSDevice:\tDevice 4043\nRev:\ta1\n\n';

/** The cards of a machine with these devices, and this output of lspci or why there is none. */
function name(devices: Readonly<Record<string, Omit<PciDevice, 'address'>>>, lspci: string | UntoldError) {
  const pci = Object.entries(devices).map(([address, device]) => ({ address, ...device }));
  return nameGraphics(graphicsCards(pci), lspci);
}

describe('the graphics cards', () => {
  it('are those of the kernel, with the names of lspci', () => {
    const pci = { '0000:00:02.0': INTEL, '000f:01:00.0': NVIDIA, '0000:02:00.0': DISK };
    const lspci =
      record('0000:00:02.0', 'AlderLake-S GT1') +
      record('000f:01:00.0', 'GA102 [GeForce RTX 3090]') +
      record('0000:02:00.0', 'NVMe SSD Controller PM9A1');
    assert.deepEqual(name(pci, lspci), {
      ids: ['0x10de:0x2204', '0x8086:0x4680'],
      models: ['AlderLake-S GT1', 'GA102 [GeForce RTX 3090]'],
    });
  });

  it('are none where the kernel has none, whatever lspci prints', () => {
    const none = { ids: [], models: [] };
    assert.deepEqual(name({ '0000:02:00.0': DISK }, record('0000:01:00.0', 'GA102')), none);
    assert.deepEqual(name({ '0000:02:00.0': DISK }, ''), none);
    assert.deepEqual(name({}, ''), none);
  });

  it('do not count one that was unplugged while it was read', () => {
    const pci = { '0000:00:02.0': { ...NVIDIA, device: undefined }, '0000:01:00.0': { ...NVIDIA, class: undefined } };
    assert.deepEqual(name(pci, ''), { ids: [], models: [] });
  });

  it('have no names, but stay, where lspci is missing', () => {
    assert.deepEqual(name({ '0000:01:00.0': NVIDIA }, new UntoldError('lspci is not installed')), {
      ids: ['0x10de:0x2204'],
      models: [],
      untold: 'lspci is not installed',
    });
  });

  it('have no names where lspci leaves out one of them', () => {
    const { models, untold } = name(
      { '0000:00:02.0': INTEL, '0000:01:00.0': NVIDIA },
      record('0000:00:02.0', 'AlderLake-S GT1') + record('0000:01:00.0', ''),
    );
    assert.deepEqual(models, []);
    assert.match(untold ?? '', /^lspci does not list the card at 0000:01:00\.0/);
  });
});
