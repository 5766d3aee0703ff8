import { readdir, readFile, realpath } from 'node:fs/promises';
import path from 'node:path';
import { ProgramError, runProgram } from '../async/run-program.ts';
import { systemErrorCode } from '../errors.ts';
import type { BlockDevice } from './drive-serials.ts';
import type { PciDevice } from './graphics.ts';
import { UntoldError } from './untold-error.ts';

/** The Debian packages of the programs, which other distributions mostly call the same. */
const PACKAGES = { lscpu: 'util-linux', lspci: 'pciutils' } as const;
export type Tool = keyof typeof PACKAGES;
const TOOL_BOUNDS = { timeoutMs: 10_000, maxLength: 1024 * 1024 };

export interface MachineOptions {
  /** Where the kernel shows the CPU: `/proc`. */
  readonly procRoot?: string;
  /** Where it shows the devices: `/sys`. */
  readonly sysRoot?: string;
}

/**
 * The errors of what a device does not have, or of a device that was unplugged meanwhile. All others may pass: if they
 * counted as an attribute that is not there, the same machine would get another string.
 */
const ABSENT: readonly (string | undefined)[] = ['ENOENT', 'ENOTDIR', 'ENODEV', 'ENXIO', 'ENODATA', 'EINVAL'];

/**
 * What this machine tells of itself, as it is. Devices are read from sysfs, the kernel's own view: it needs no program and
 * no database, and is the same inside and outside of a container, where `lsblk` would lack udev's database.
 *
 * @throws UntoldError, or the system's error, from every method
 */
export class Machine {
  readonly #procRoot: string;
  readonly #sysRoot: string;

  constructor({ procRoot = '/proc', sysRoot = '/sys' }: MachineOptions = {}) {
    this.#procRoot = procRoot;
    this.#sysRoot = sysRoot;
  }

  async cpuinfo(): Promise<string> {
    return await readFile(path.join(this.#procRoot, 'cpuinfo'), 'utf8');
  }

  /** What a program prints within ten seconds, and 1 MiB. */
  async toolOutput(tool: Tool, options = ''): Promise<string> {
    try {
      // The shell sets the language, since names of fields are translated. The rest of the environment holds no secret:
      // src/config has removed them.
      return await runProgram(`export LC_ALL=C; exec ${tool} ${options}`, TOOL_BOUNDS);
    } catch (error) {
      throw error instanceof ProgramError ? new UntoldError(reasonOf(tool, error), { cause: error.cause }) : error;
    }
  }

  /** Bytes of the memory that the kernel has. */
  async memoryBytes(): Promise<number> {
    // It is imported here because it is large and needed only once, or never where HARDWARE_ID is set. Its `cpu()` and
    // `graphics()` are not used: the one drops the first word of each model, the other gives other names as soon as
    // clinfo is installed, none without lspci, and has no deadline.
    const { mem } = await import('systeminformation');
    return (await mem()).total;
  }

  /** The devices on PCI, sorted by address. */
  async pciDevices(): Promise<readonly PciDevice[]> {
    const devices: PciDevice[] = [];
    for (const address of await this.#list('bus/pci/devices')) {
      const attribute = async (name: string) => await this.#attribute('bus/pci/devices', address, name);
      const [kind, vendor, device] = await Promise.all(['class', 'vendor', 'device'].map(attribute));
      devices.push({ address, class: kind, vendor, device });
    }
    return devices;
  }

  /** The block devices, sorted by name. */
  async blockDevices(): Promise<readonly BlockDevice[]> {
    const devices: BlockDevice[] = [];
    for (const name of await this.#list('block')) {
      const attribute = async (attributeName: string) => await this.#attribute('block', name, attributeName);
      const [removable, serial, deviceSerial] = await Promise.all(
        ['removable', 'serial', 'device/serial'].map(attribute),
      );
      const vpdPage = await this.#bytes('block', name, 'device/vpd_pg80');
      const realPath = await realpath(path.join(this.#sysRoot, 'block', name)).catch(undefinedIfAbsent);
      devices.push({ name, realPath, removable, serial, deviceSerial, vpdPage });
    }
    return devices;
  }

  /** The names in a folder of sysfs, sorted; none where the kernel has no such folder. @throws UntoldError without a sysfs */
  async #list(folder: string): Promise<readonly string[]> {
    const names = await readdir(path.join(this.#sysRoot, folder)).catch(undefinedIfAbsent);
    if (names !== undefined) return names.sort();
    // A kernel without PCI or without disks lacks that folder, but has others.
    const others = await readdir(this.#sysRoot).catch(undefinedIfAbsent);
    if (others === undefined || others.length === 0) {
      throw new UntoldError(`${this.#sysRoot} shows no devices: mount a sysfs there, as container engines do`);
    }
    return [];
  }

  /** An attribute of a device, without the spaces around it; undefined when it is not there or empty. */
  async #attribute(...location: readonly string[]): Promise<string | undefined> {
    const value = (await this.#bytes(...location))?.toString('utf8').trim();
    return value === '' ? undefined : value;
  }

  /** The bytes of an attribute; undefined when it is not there. */
  async #bytes(...location: readonly string[]): Promise<Buffer | undefined> {
    return await readFile(path.join(this.#sysRoot, ...location)).catch(undefinedIfAbsent);
  }
}

function undefinedIfAbsent(error: unknown): undefined {
  if (!ABSENT.includes(systemErrorCode(error))) throw error;
}

function reasonOf(tool: Tool, { kind }: ProgramError): string {
  if (kind === 'absent') return `${tool} is not installed: install the package ${PACKAGES[tool]}`;
  const how = kind === 'late' ? `did not end within ${TOOL_BOUNDS.timeoutMs / 1000} s` : 'failed';
  return `${tool} ${how}: run it in a shell, and install the package ${PACKAGES[tool]} if it is that of another one`;
}
