import { readdir, readFile, realpath } from 'node:fs/promises';
import path from 'node:path';
import { systemErrorCode } from '../errors.ts';
import type { GraphicsCard } from './graphics.ts';
import { UntoldError } from './untold-error.ts';

const PCI_DEVICES = 'bus/pci/devices';
/** PCI's base class of VGA, 3D and other display controllers. */
const DISPLAY_CLASS = '0x03';
/** Devices that are not fixed disks of the machine: loop, ram, zram, device mapper, RAID, optical, floppy, network. */
const NO_FIXED_DISK = /^(?:loop|ram|zram|dm-|md|sr|fd|nbd|rbd|drbd|zd|mtdblock)/;

/**
 * The errors of what a device does not have, or of a device that was unplugged meanwhile. All others may pass: if they
 * counted as an attribute that is not there, the same machine would get another string.
 */
const ABSENT: readonly (string | undefined)[] = ['ENOENT', 'ENOTDIR', 'ENODEV', 'ENXIO', 'ENODATA', 'EINVAL'];

/**
 * The kernel's own view of the devices. It needs no program and no database, and is the same inside and outside of a
 * container.
 */
export class Sysfs {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  /** The graphics cards on PCI. @throws UntoldError without a sysfs */
  async graphicsCards(): Promise<readonly GraphicsCard[]> {
    const cards: GraphicsCard[] = [];
    for (const address of await this.#list(PCI_DEVICES)) {
      const device = path.join(PCI_DEVICES, address);
      if ((await this.#attribute(device, 'class'))?.startsWith(DISPLAY_CLASS) !== true) continue;
      const vendor = await this.#attribute(device, 'vendor');
      const product = await this.#attribute(device, 'device');
      if (vendor !== undefined && product !== undefined) cards.push({ address, id: `${vendor}:${product}` });
    }
    return cards;
  }

  /**
   * The serials of all fixed disks by device name; null for a disk without one. They are read here since `lsblk` gets them
   * from udev's database, which a container does not have.
   *
   * @throws UntoldError without a sysfs
   */
  async driveSerials(): Promise<readonly (string | null)[]> {
    const serials: (string | null)[] = [];
    for (const name of await this.#list('block')) {
      const device = path.join('block', name);
      if (NO_FIXED_DISK.test(name) || (await this.#attribute(device, 'removable')) === '1') continue;
      // USB disks often call themselves fixed; only the path of the device shows USB.
      const realPath = await realpath(path.join(this.#root, device)).catch(undefinedIfAbsent);
      if (realPath === undefined || /\/usb\d/.test(realPath)) continue;
      serials.push((await this.#driveSerial(device)) ?? null);
    }
    return serials;
  }

  async #driveSerial(device: string): Promise<string | undefined> {
    return (
      (await this.#attribute(device, 'serial')) ?? // virtio
      (await this.#attribute(device, 'device/serial')) ?? // NVMe, MMC
      unitSerialNumber(await readFile(path.join(this.#root, device, 'device/vpd_pg80')).catch(undefinedIfAbsent)) // SCSI, SATA
    );
  }

  /** The names in a folder, sorted; none where the kernel has no such folder. @throws UntoldError without a sysfs */
  async #list(folder: string): Promise<readonly string[]> {
    const names = await readdir(path.join(this.#root, folder)).catch(undefinedIfAbsent);
    if (names !== undefined) return names.sort();
    // A kernel without PCI or without disks lacks that folder, but has others.
    const others = await readdir(this.#root).catch(undefinedIfAbsent);
    if (others === undefined || others.length === 0) {
      throw new UntoldError(`${this.#root} shows no devices: mount a sysfs there, as container engines do`);
    }
    return [];
  }

  /** An attribute of a device, without the spaces around it; undefined when it is not there or empty. */
  async #attribute(device: string, name: string): Promise<string | undefined> {
    const value = await readFile(path.join(this.#root, device, name), 'utf8').catch(undefinedIfAbsent);
    return value?.trim() === '' ? undefined : value?.trim();
  }
}

function undefinedIfAbsent(error: unknown): undefined {
  if (!ABSENT.includes(systemErrorCode(error))) throw error;
}

/** SCSI's vital product data page 80h: four bytes of header, the last two of them the length, then the serial. */
function unitSerialNumber(page: Buffer | undefined): string | undefined {
  if (page === undefined || page.length < 4) return undefined;
  const serial = page.toString('latin1', 4, 4 + page.readUInt16BE(2)).trim();
  return serial === '' ? undefined : serial;
}
