import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { readFirstFixedDriveSerial, readHardwareFacts } from '../../../src/hardware/hardware-facts.ts';

let sysfs = '';

beforeEach(async () => {
  sysfs = await mkdtemp(path.join(tmpdir(), 'loader-sysfs-'));
});

afterEach(async () => {
  await rm(sysfs, { recursive: true, force: true });
});

interface FakeDisk {
  readonly name: string;
  /** Folder under /sys/devices in which the disk's own folder lies. */
  readonly bus?: string;
  /** Files by their path under the disk's folder. */
  readonly files: Readonly<Record<string, string | Buffer>>;
}

/** Makes disks as sysfs shows them: `block/<name>` is a link to a folder under `devices`. */
async function addDisks(...disks: readonly FakeDisk[]): Promise<void> {
  await mkdir(path.join(sysfs, 'block'), { recursive: true });
  for (const disk of disks) {
    const folder = path.join(sysfs, 'devices', disk.bus ?? 'pci0000:00', 'block', disk.name);
    for (const [name, content] of Object.entries(disk.files)) {
      await mkdir(path.dirname(path.join(folder, name)), { recursive: true });
      await writeFile(path.join(folder, name), content);
    }
    await symlink(path.relative(path.join(sysfs, 'block'), folder), path.join(sysfs, 'block', disk.name));
  }
}

function vpdPage(serial: string, trailing = ''): Buffer {
  const header = Buffer.from([0, 0x80, 0, 0]);
  header.writeUInt16BE(serial.length, 2);
  return Buffer.concat([header, Buffer.from(serial + trailing, 'latin1')]);
}

describe('the serial of the first fixed disk', () => {
  it('is read from device/serial of an NVMe disk, without the padding', async () => {
    await addDisks({ name: 'nvme0n1', files: { removable: '0\n', 'device/serial': 'S4X7NF0M        \n' } });
    assert.equal(await readFirstFixedDriveSerial(sysfs), 'S4X7NF0M');
  });

  it('is read from the serial of a virtio disk', async () => {
    await addDisks({ name: 'vda', files: { removable: '0\n', serial: 'virtio-1\n' } });
    assert.equal(await readFirstFixedDriveSerial(sysfs), 'virtio-1');
  });

  it('is read from the bytes of vpd_pg80 of a SCSI disk', async () => {
    await addDisks({ name: 'sda', files: { removable: '0\n', 'device/vpd_pg80': vpdPage('  WD-1234  ') } });
    assert.equal(await readFirstFixedDriveSerial(sysfs), 'WD-1234');
  });

  it('ends where the length of vpd_pg80 says', async () => {
    await addDisks({ name: 'sda', files: { removable: '0\n', 'device/vpd_pg80': vpdPage('WD-1234', 'rubbish') } });
    assert.equal(await readFirstFixedDriveSerial(sysfs), 'WD-1234');
  });

  it('is of the first by name, in whatever order the folder lists them', async () => {
    await addDisks(
      { name: 'sdb', files: { removable: '0\n', 'device/vpd_pg80': vpdPage('second') } },
      { name: 'sda', files: { removable: '0\n', 'device/vpd_pg80': vpdPage('first') } },
      { name: 'sdc', files: { removable: '0\n', 'device/vpd_pg80': vpdPage('third') } },
    );
    assert.equal(await readFirstFixedDriveSerial(sysfs), 'first');
  });

  it('is none when the first has none, even if the second has one', async () => {
    await addDisks(
      { name: 'sda', files: { removable: '0\n' } },
      { name: 'sdb', files: { removable: '0\n', 'device/serial': 'second' } },
    );
    assert.equal(await readFirstFixedDriveSerial(sysfs), undefined);
  });

  it('is none when its attributes are empty', async () => {
    const files = { removable: '0\n', serial: '\n', 'device/serial': '  \n', 'device/vpd_pg80': vpdPage('    ') };
    await addDisks({ name: 'sda', files });
    assert.equal(await readFirstFixedDriveSerial(sysfs), undefined);
  });

  it('is none when vpd_pg80 is cut', async () => {
    await addDisks({ name: 'sda', files: { removable: '0\n', 'device/vpd_pg80': Buffer.from([0, 0x80]) } });
    assert.equal(await readFirstFixedDriveSerial(sysfs), undefined);
  });

  it('does not change with a removable disk before it', async () => {
    await addDisks(
      { name: 'sda', files: { removable: '1\n', 'device/serial': 'stick' } },
      { name: 'sdb', files: { removable: '0\n', 'device/serial': 'fixed' } },
    );
    assert.equal(await readFirstFixedDriveSerial(sysfs), 'fixed');
  });

  it('does not change with a USB disk that calls itself fixed', async () => {
    await addDisks(
      { name: 'sda', bus: 'pci0000:00/usb2/2-1/host6', files: { removable: '0\n', 'device/serial': 'usb' } },
      { name: 'sdb', files: { removable: '0\n', 'device/serial': 'fixed' } },
    );
    assert.equal(await readFirstFixedDriveSerial(sysfs), 'fixed');
  });

  it('does not come from devices without a disk of their own', async () => {
    const files = { removable: '0\n', serial: 'none of ours' };
    const names = ['dm-0', 'fd0', 'loop0', 'md0', 'mtdblock0', 'nbd0', 'ram0', 'sr0', 'zram0'];
    await addDisks(...names.map((name) => ({ name, files })));
    assert.equal(await readFirstFixedDriveSerial(sysfs), undefined);
    await addDisks({ name: 'vda', files: { removable: '0\n', serial: 'ours' } });
    assert.equal(await readFirstFixedDriveSerial(sysfs), 'ours');
  });

  it('is none on a machine without disks, or without sysfs', async () => {
    assert.equal(await readFirstFixedDriveSerial(sysfs), undefined);
    assert.equal(await readFirstFixedDriveSerial(path.join(sysfs, 'absent')), undefined);
  });
});

describe('readHardwareFacts', () => {
  it('tells CPU and memory of this machine, and the drive of the given sysfs', async () => {
    await addDisks({ name: 'nvme0n1', files: { removable: '0\n', 'device/serial': 'SERIAL' } });
    const facts = await readHardwareFacts(sysfs);
    assert.equal(facts.driveSerial, 'SERIAL');
    assert.ok(facts.memoryBytes > 64 * 1024 * 1024);
    assert.equal(typeof facts.cpuModel, 'string');
    assert.deepEqual(await readHardwareFacts(sysfs), facts);
  });
});
