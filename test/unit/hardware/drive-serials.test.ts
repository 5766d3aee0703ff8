import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { driveSerials } from '../../../src/hardware/drive-serials.ts';
import { Board, vpdPage, type FakeDisk } from '../../support/board.ts';

let board: Board;

beforeEach(async () => {
  board = await Board.make({ devices: { pci: null } });
});

afterEach(async () => {
  await board[Symbol.asyncDispose]();
});

async function setDisks(...disks: readonly FakeDisk[]): Promise<void> {
  await board.setDevices({ pci: null, disks });
}

const serials = async () => driveSerials(await board.machine.blockDevices());
const first = async () => (await serials())[0] ?? null;

describe('the serial of the first fixed disk', () => {
  it('is read from device/serial of an NVMe disk, without the padding', async () => {
    await setDisks({ name: 'nvme0n1', files: { removable: '0', 'device/serial': 'S4X7NF0M        \n' } });
    assert.equal(await first(), 'S4X7NF0M');
  });

  it('is read from the serial of a virtio disk', async () => {
    await setDisks({ name: 'vda', files: { removable: '0', serial: 'virtio-1' } });
    assert.equal(await first(), 'virtio-1');
  });

  it('is read from the bytes of vpd_pg80 of a SCSI disk', async () => {
    await setDisks({ name: 'sda', files: { removable: '0', 'device/vpd_pg80': vpdPage('  WD-1234  ') } });
    assert.equal(await first(), 'WD-1234');
  });

  it('ends where the length of vpd_pg80 says', async () => {
    await setDisks({ name: 'sda', files: { removable: '0', 'device/vpd_pg80': vpdPage('WD-1234', 'rubbish') } });
    assert.equal(await first(), 'WD-1234');
  });

  it('is of the first by name, in whatever order the folder lists them', async () => {
    await setDisks(
      { name: 'sdb', files: { removable: '0', 'device/vpd_pg80': vpdPage('second') } },
      { name: 'sda', files: { removable: '0', 'device/vpd_pg80': vpdPage('first') } },
      { name: 'sdc', files: { removable: '0', 'device/vpd_pg80': vpdPage('third') } },
    );
    assert.equal(await first(), 'first');
  });

  it('is none when the first has none, even if the second has one', async () => {
    await setDisks(
      { name: 'sda', files: { removable: '0' } },
      { name: 'sdb', files: { removable: '0', 'device/serial': 'second' } },
    );
    assert.equal(await first(), null);
  });

  it('is none when its attributes are empty', async () => {
    const files = { removable: '0', serial: '\n', 'device/serial': '  \n', 'device/vpd_pg80': vpdPage('    ') };
    await setDisks({ name: 'sda', files });
    assert.equal(await first(), null);
  });

  it('is none when vpd_pg80 is cut', async () => {
    await setDisks({ name: 'sda', files: { removable: '0', 'device/vpd_pg80': Buffer.from([0, 0x80]) } });
    assert.equal(await first(), null);
  });

  it('does not change with a removable disk before it', async () => {
    await setDisks(
      { name: 'sda', files: { removable: '1', 'device/serial': 'stick' } },
      { name: 'sdb', files: { removable: '0', 'device/serial': 'fixed' } },
    );
    assert.equal(await first(), 'fixed');
  });

  it('does not change with a USB disk that calls itself fixed', async () => {
    await setDisks(
      { name: 'sda', bus: 'pci0000:00/usb2/2-1/host6', files: { removable: '0', 'device/serial': 'usb' } },
      { name: 'sdb', files: { removable: '0', 'device/serial': 'fixed' } },
    );
    assert.equal(await first(), 'fixed');
  });

  it('does not come from devices without a disk of their own', async () => {
    const files = { removable: '0', serial: 'none of ours' };
    const names = ['dm-0', 'fd0', 'loop0', 'md0', 'mtdblock0', 'nbd0', 'ram0', 'sr0', 'zram0'];
    const devices = names.map((name) => ({ name, files }));
    await setDisks(...devices);
    assert.equal(await first(), null);
    await setDisks(...devices, { name: 'vda', files: { removable: '0', serial: 'ours' } });
    assert.equal(await first(), 'ours');
  });

  it('is none on a machine without disks, or with a kernel that knows none', async () => {
    assert.equal(await first(), null);
    await rm(path.join(board.sysRoot, 'block'), { recursive: true });
    assert.equal(await first(), null);
  });
});

describe('the serials of the fixed disks', () => {
  it('are all of them by device name, with null for a disk that has none', async () => {
    await setDisks(
      { name: 'sdc', files: { removable: '0', 'device/serial': 'third' } },
      { name: 'sda', files: { removable: '0', 'device/serial': 'first' } },
      { name: 'sdb', files: { removable: '0' } },
      { name: 'sdd', files: { removable: '1', 'device/serial': 'stick' } },
    );
    assert.deepEqual(await serials(), ['first', null, 'third']);
  });
});
