/** Devices that are not fixed disks of the machine: loop, ram, zram, device mapper, RAID, optical, floppy, network. */
const NO_FIXED_DISK = /^(?:loop|ram|zram|dm-|md|sr|fd|nbd|rbd|drbd|zd|mtdblock)/;

/** A block device; what it lacks is undefined. */
export interface BlockDevice {
  readonly name: string;
  /** Its real path in sysfs, which shows the buses that it is connected by; undefined when it is gone. */
  readonly realPath: string | undefined;
  readonly removable: string | undefined;
  /** Of virtio. */
  readonly serial: string | undefined;
  /** Of NVMe and MMC. */
  readonly deviceSerial: string | undefined;
  /** Of SCSI and SATA: page 80h of vital product data. */
  readonly vpdPage: Buffer | undefined;
}

/** The serials of all fixed disks among `devices`, in the same order; null for a disk without one. */
export function driveSerials(devices: readonly BlockDevice[]): readonly (string | null)[] {
  return devices
    .filter(isFixedDisk)
    .map(({ serial, deviceSerial, vpdPage }) => serial ?? deviceSerial ?? unitSerialNumber(vpdPage) ?? null);
}

/** USB disks often call themselves fixed; only the path of the device shows USB. */
function isFixedDisk({ name, realPath, removable }: BlockDevice): boolean {
  return !NO_FIXED_DISK.test(name) && removable !== '1' && realPath !== undefined && !/\/usb\d/.test(realPath);
}

/** SCSI's vital product data page 80h: four bytes of header, the last two of them the length, then the serial. */
function unitSerialNumber(page: Buffer | undefined): string | undefined {
  if (page === undefined || page.length < 4) return undefined;
  const serial = page.toString('latin1', 4, 4 + page.readUInt16BE(2)).trim();
  return serial === '' ? undefined : serial;
}
