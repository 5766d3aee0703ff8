import { readdir, readFile, realpath } from 'node:fs/promises';
import path from 'node:path';
import { cpu, graphics, mem } from 'systeminformation';
import { systemErrorCode } from '../errors.ts';

/** What the hardware string is made of (docs/protocol.md section 2). */
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
 * `sysfsRoot` is where the kernel shows its devices. The drive's serial is read from there and not through
 * systeminformation, which asks `lsblk`: that one gets it from udev's database, which a container does not have, and
 * the same machine must have the same string inside and outside of one.
 */
export async function readHardwareFacts(sysfsRoot = '/sys'): Promise<HardwareFacts> {
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

/** Devices without a disk of their own behind them: loop, ram, zram, device mapper, RAID, optical, floppy, network. */
const NO_FIXED_DISK = /^(?:loop|ram|zram|dm-|md|sr|fd|nbd|rbd|drbd|zd|mtdblock)/;

/** Errors that would make another string of the same machine, if they were taken for a missing serial. */
const PASSING_ERRORS: readonly string[] = ['EMFILE', 'ENFILE', 'ENOMEM', 'EACCES', 'EPERM'];

/** Serial of the first fixed disk by device name, or undefined when it has none or there is no such disk. */
export async function readFirstFixedDriveSerial(sysfsRoot: string): Promise<string | undefined> {
  const blockFolder = path.join(sysfsRoot, 'block');
  const names = (await readdirOrEmpty(blockFolder)).filter((name) => !NO_FIXED_DISK.test(name)).sort();
  for (const name of names) {
    const device = path.join(blockFolder, name);
    if ((await readAttribute(device, 'removable')) === '1') continue;
    // USB disks often call themselves fixed; the path of their device tells.
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

/** A device lacks the attributes of the other kinds, and may be unplugged while we look. */
function undefinedIfAbsent(error: unknown): undefined {
  if (PASSING_ERRORS.includes(systemErrorCode(error) ?? '')) throw error;
}
