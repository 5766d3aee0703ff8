import { readdir, readFile, realpath } from 'node:fs/promises';
import path from 'node:path';
import { systemErrorCode } from '../errors.ts';

/** The parts of the hardware string (docs/protocol.md section 2). */
export interface HardwareFacts {
  readonly cpuModel: string;
  readonly gpuModels: readonly string[];
  readonly memoryBytes: number;
  /** Serial of the first fixed disk by device name. */
  readonly driveSerial: string | undefined;
}

/**
 * Reads the facts of this machine.
 *
 * `sysfsRoot` is where the kernel shows its devices. The drive's serial is read from there, since systeminformation asks
 * `lsblk`, which gets it from udev's database. A container does not have that database, and the same machine must have
 * the same string inside and outside of a container.
 */
export async function readHardwareFacts(sysfsRoot = '/sys'): Promise<HardwareFacts> {
  // It is imported here because it is large and needed only once, or never where HARDWARE_ID is set.
  const { cpu, graphics, mem } = await import('systeminformation');
  const [cpuData, memData, graphicsData, driveSerial] = await Promise.all([
    cpu(),
    mem(),
    graphics(),
    readFirstFixedDriveSerial(sysfsRoot),
  ]);
  return {
    cpuModel: cpuData.brand,
    // `model` comes from the PCI database alone; `name` would change with an installed or missing nvidia-smi.
    gpuModels: graphicsData.controllers.map((controller) => controller.model),
    memoryBytes: memData.total,
    driveSerial,
  };
}

/** Devices that are not fixed disks of the machine: loop, ram, zram, device mapper, RAID, optical, floppy, network. */
const NO_FIXED_DISK = /^(?:loop|ram|zram|dm-|md|sr|fd|nbd|rbd|drbd|zd|mtdblock)/;

/** Errors that may pass. If they counted as a missing serial, the same machine would get another string. */
const PASSING_ERRORS: readonly string[] = ['EMFILE', 'ENFILE', 'ENOMEM', 'EACCES', 'EPERM'];

/** The serial of the first fixed disk by device name; undefined when it has none or there is no such disk. */
export async function readFirstFixedDriveSerial(sysfsRoot: string): Promise<string | undefined> {
  const blockFolder = path.join(sysfsRoot, 'block');
  const names = (await readdirOrEmpty(blockFolder)).filter((name) => !NO_FIXED_DISK.test(name)).sort();
  for (const name of names) {
    const device = path.join(blockFolder, name);
    if ((await readAttribute(device, 'removable')) === '1') continue;
    // USB disks often call themselves fixed; only the path of the device shows USB.
    const devicePath = await realpath(device).catch(undefinedIfAbsent);
    if (devicePath === undefined || /\/usb\d/.test(devicePath)) continue;
    return await readDriveSerial(device);
  }
  return undefined;
}

async function readDriveSerial(device: string): Promise<string | undefined> {
  return (
    (await readAttribute(device, 'serial')) ?? // virtio
    (await readAttribute(device, 'device/serial')) ?? // NVMe, MMC
    (await readUnitSerialNumberPage(device)) // SCSI, SATA
  );
}

async function readAttribute(device: string, name: string): Promise<string | undefined> {
  const value = await readFile(path.join(device, name), 'utf8').catch(undefinedIfAbsent);
  return value?.trim() === '' ? undefined : value?.trim();
}

/** SCSI's vital product data page 80h: four bytes of header, the last two of them the length, then the serial. */
async function readUnitSerialNumberPage(device: string): Promise<string | undefined> {
  const page = await readFile(path.join(device, 'device/vpd_pg80')).catch(undefinedIfAbsent);
  if (page === undefined || page.length < 4) return undefined;
  const serial = page.toString('latin1', 4, 4 + page.readUInt16BE(2)).trim();
  return serial === '' ? undefined : serial;
}

async function readdirOrEmpty(folder: string): Promise<string[]> {
  return (await readdir(folder).catch(undefinedIfAbsent)) ?? [];
}

/** A device lacks the attributes of the other kinds of devices, and may be unplugged meanwhile. */
function undefinedIfAbsent(error: unknown): undefined {
  if (PASSING_ERRORS.includes(systemErrorCode(error) ?? '')) throw error;
}
