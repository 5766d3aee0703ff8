import path from 'node:path';
import { askTwice, type HardwareSources } from './hardware-sources.ts';
import { Sysfs } from './sysfs.ts';

/** Devices that are not fixed disks of the machine: loop, ram, zram, device mapper, RAID, optical, floppy, network. */
const NO_FIXED_DISK = /^(?:loop|ram|zram|dm-|md|sr|fd|nbd|rbd|drbd|zd|mtdblock)/;

/**
 * The serials of all fixed disks by device name; null for a disk without one. They are read from sysfs since `lsblk` gets
 * them from udev's database, which a container does not have.
 *
 * @throws UntoldError, or the system's error, when they can't be read
 */
export async function readDriveSerials(sources: HardwareSources): Promise<readonly (string | null)[]> {
  return await askTwice(sources, () => listSerials(new Sysfs(sources.sysRoot)));
}

async function listSerials(sysfs: Sysfs): Promise<readonly (string | null)[]> {
  const serials: (string | null)[] = [];
  for (const name of await sysfs.list('block')) {
    const device = path.join('block', name);
    if (NO_FIXED_DISK.test(name) || (await sysfs.attribute(device, 'removable')) === '1') continue;
    // USB disks often call themselves fixed; only the path of the device shows USB.
    const realPath = await sysfs.realPath(device);
    if (realPath === undefined || /\/usb\d/.test(realPath)) continue;
    serials.push((await readSerial(sysfs, device)) ?? null);
  }
  return serials;
}

async function readSerial(sysfs: Sysfs, device: string): Promise<string | undefined> {
  return (
    (await sysfs.attribute(device, 'serial')) ?? // virtio
    (await sysfs.attribute(device, 'device/serial')) ?? // NVMe, MMC
    unitSerialNumber(await sysfs.bytes(device, 'device/vpd_pg80')) // SCSI, SATA
  );
}

/** SCSI's vital product data page 80h: four bytes of header, the last two of them the length, then the serial. */
function unitSerialNumber(page: Buffer | undefined): string | undefined {
  if (page === undefined || page.length < 4) return undefined;
  const serial = page.toString('latin1', 4, 4 + page.readUInt16BE(2)).trim();
  return serial === '' ? undefined : serial;
}
