import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { readHardware, type HardwareReading } from '../../src/hardware/read-hardware.ts';
import { Machine, type Tool } from '../../src/hardware/machine.ts';
import { UntoldError } from '../../src/hardware/untold-error.ts';

export const BOARDS_FOLDER = path.resolve(import.meta.dirname, '../unit/hardware/fixtures');

/** What sysfs has of a disk. */
export interface FakeDisk {
  readonly name: string;
  /** Folder under /sys/devices in which the disk's own folder lies. */
  readonly bus?: string;
  /** Files by their path under the disk's folder. */
  readonly files: Readonly<Record<string, string | Buffer>>;
  /** The serial of its page 80h of vital product data, if it has one. */
  readonly vpd?: string;
}

export interface PciDevice {
  readonly class: string;
  readonly vendor: string;
  readonly device: string;
}

/** What sysfs shows; without it there is no sysfs, and null is a kernel without PCI. */
export interface FakeDevices {
  readonly pci?: Readonly<Record<string, PciDevice>> | null;
  readonly disks?: readonly FakeDisk[];
}

/**
 * A machine of fixtures: its `/proc`, its `/sys` and what its programs print, all in a folder of its own. Its parts can be
 * changed between two reads.
 */
export class Board implements AsyncDisposable {
  readonly folder: string;
  /** What lscpu and lspci print; a program without an entry is not installed. */
  readonly outputs: Map<string, string>;
  memoryBytes: number;
  /** The programs in the order in which they ran. */
  readonly runs: string[] = [];

  private constructor(folder: string, outputs: Map<string, string>, memoryBytes: number) {
    this.folder = folder;
    this.outputs = outputs;
    this.memoryBytes = memoryBytes;
  }

  /** Opens one of the fixtures. */
  static async open(name: string): Promise<Board> {
    const read = (file: string) => readFileSync(path.join(BOARDS_FOLDER, name, file), 'utf8');
    const outputs = ['lscpu', 'lspci'].filter((tool) => existsSync(path.join(BOARDS_FOLDER, name, `${tool}.txt`)));
    const board = await Board.make({
      cpuinfo: read('cpuinfo'),
      devices: JSON.parse(read('devices.json')) as FakeDevices,
      memoryBytes: Number(/^MemTotal:\s+(\d+) kB$/m.exec(read('meminfo'))?.[1]) * 1024,
    });
    for (const tool of outputs) board.outputs.set(tool, read(`${tool}.txt`));
    return board;
  }

  /** Makes one that is like no real board. */
  static async make(parts: { cpuinfo?: string; devices?: FakeDevices; memoryBytes?: number }): Promise<Board> {
    const folder = await mkdtemp(path.join(tmpdir(), 'loader-board-'));
    const board = new Board(folder, new Map(), parts.memoryBytes ?? 1024 ** 3);
    await mkdir(board.procRoot);
    await mkdir(board.sysRoot);
    await writeFile(path.join(board.procRoot, 'cpuinfo'), parts.cpuinfo ?? '');
    if (parts.devices !== undefined) await board.setDevices(parts.devices);
    return board;
  }

  get procRoot(): string {
    return path.join(this.folder, 'proc');
  }

  get sysRoot(): string {
    return path.join(this.folder, 'sys');
  }

  /** What this board tells of itself. */
  get machine(): Machine {
    return new BoardMachine(this);
  }

  /** Reads its hardware, without a pause before a source is asked again. */
  async read(): Promise<HardwareReading> {
    return await readHardware(this.machine, 0);
  }

  /** What a program prints, or why it prints nothing. */
  run(tool: Tool): string | UntoldError {
    this.runs.push(tool);
    return this.outputs.get(tool) ?? new UntoldError(`${tool} is not installed`);
  }

  /** Makes sysfs anew. */
  async setDevices({ pci, disks }: FakeDevices): Promise<void> {
    await rm(this.sysRoot, { recursive: true });
    await mkdir(this.sysRoot);
    if (pci === undefined) return;
    await mkdir(path.join(this.sysRoot, 'bus/cpu'), { recursive: true });
    if (pci !== null) await mkdir(path.join(this.sysRoot, 'bus/pci/devices'), { recursive: true });
    for (const [address, device] of Object.entries(pci ?? {})) {
      await this.#writeFiles(`bus/pci/devices/${address}`, Object.entries(device));
    }
    await mkdir(path.join(this.sysRoot, 'block'));
    for (const disk of disks ?? []) await this.#addDisk(disk);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }

  /** As sysfs shows disks: `block/<name>` is a link to a folder under `devices`. */
  async #addDisk({ name, bus = 'pci0000:00', files, vpd }: FakeDisk): Promise<void> {
    const device = `devices/${bus}/block/${name}`;
    await this.#writeFiles(device, Object.entries(files));
    if (vpd !== undefined) await this.#writeFiles(device, [['device/vpd_pg80', vpdPage(vpd)]]);
    await symlink(`../${device}`, path.join(this.sysRoot, 'block', name));
  }

  async #writeFiles(folder: string, files: readonly (readonly [string, string | Buffer])[]): Promise<void> {
    for (const [name, content] of files) {
      const file = path.join(this.sysRoot, folder, name);
      await mkdir(path.dirname(file), { recursive: true });
      await writeFile(file, typeof content === 'string' ? `${content}\n` : content);
    }
  }
}

/** A machine whose files are the board's, and whose programs and memory are too. */
class BoardMachine extends Machine {
  readonly #board: Board;

  constructor(board: Board) {
    super({ procRoot: board.procRoot, sysRoot: board.sysRoot });
    this.#board = board;
  }

  override toolOutput(tool: Tool): Promise<string> {
    const output = this.#board.run(tool);
    return typeof output === 'string' ? Promise.resolve(output) : Promise.reject(output);
  }

  override memoryBytes(): Promise<number> {
    return Promise.resolve(this.#board.memoryBytes);
  }
}

/** SCSI's page 80h of vital product data. */
export function vpdPage(serial: string, trailing = ''): Buffer {
  const header = Buffer.from([0, 0x80, 0, 0]);
  header.writeUInt16BE(serial.length, 2);
  return Buffer.concat([header, Buffer.from(serial + trailing, 'latin1')]);
}
