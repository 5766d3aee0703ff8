import { readdir, readFile, realpath } from 'node:fs/promises';
import path from 'node:path';
import { systemErrorCode } from '../errors.ts';
import { UntoldError } from './untold-error.ts';

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

  /** The names in a folder, sorted; none where the kernel has no such folder. @throws UntoldError without a sysfs */
  async list(folder: string): Promise<readonly string[]> {
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
  async attribute(device: string, name: string): Promise<string | undefined> {
    const value = await readFile(path.join(this.#root, device, name), 'utf8').catch(undefinedIfAbsent);
    return value?.trim() === '' ? undefined : value?.trim();
  }

  /** The bytes of an attribute; undefined when it is not there. */
  async bytes(device: string, name: string): Promise<Buffer | undefined> {
    return await readFile(path.join(this.#root, device, name)).catch(undefinedIfAbsent);
  }

  /** The real path of a device, which shows the buses that it is connected by; undefined when it is gone. */
  async realPath(device: string): Promise<string | undefined> {
    return await realpath(path.join(this.#root, device)).catch(undefinedIfAbsent);
  }
}

function undefinedIfAbsent(error: unknown): undefined {
  if (!ABSENT.includes(systemErrorCode(error))) throw error;
}
