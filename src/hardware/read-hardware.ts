import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { NEVER } from '../async/abort.ts';
import { RetryCounter } from '../async/retry.ts';
import { ProgramError, runProgram } from '../async/run-program.ts';
import { LoaderError } from '../errors.ts';
import { cpuOf, lscpuModels } from './cpu.ts';
import { lspciModels } from './graphics.ts';
import { FACTS, sortedSet, type Fact, type HardwareFacts } from './hardware-facts.ts';
import type { NamedReading } from './named-reading.ts';
import { Sysfs } from './sysfs.ts';
import { UntoldError } from './untold-error.ts';

/** Where the facts of the hardware come from. */
export interface HardwareSources {
  /** Where the kernel shows CPU and devices: `/proc` and `/sys`. */
  readonly procRoot: string;
  readonly sysRoot: string;
  /** @throws UntoldError */
  readonly runTool: (tool: Tool, options?: string) => Promise<string>;
  /** Bytes of the memory that the kernel has. */
  readonly readMemory: () => Promise<number>;
  /** The longest pause before a source that failed is asked again, in ms. */
  readonly pauseMs: number;
}

/** What was read of this machine. */
export interface HardwareReading {
  readonly facts: HardwareFacts;
  /** Why CPU or GPU have no models in `facts`, though their IDs are known. */
  readonly untold: ReadonlyMap<Fact, string>;
  /** What a person should know, though the facts are whole. */
  readonly remarks: readonly string[];
}

/** The Debian packages of the programs, which other distributions mostly call the same. */
const PACKAGES = { lscpu: 'util-linux', lspci: 'pciutils' } as const;
export type Tool = keyof typeof PACKAGES;
/** Of a program that tells about the hardware. */
const TOOL_BOUNDS = { timeoutMs: 10_000, maxLength: 1024 * 1024 };

/** The sources of this machine. */
export const MACHINE: HardwareSources = {
  procRoot: '/proc',
  sysRoot: '/sys',
  runTool,
  readMemory: async () => {
    // It is imported here because it is large and needed only once, or never where HARDWARE_ID is set. Its `cpu()` and
    // `graphics()` are not used: the one drops the first word of each model, the other gives other names as soon as
    // clinfo is installed, none without lspci, and has no deadline.
    const { mem } = await import('systeminformation');
    return (await mem()).total;
  },
  pauseMs: 500,
};

/** Reads the facts of this machine. @throws LoaderError `hardware_unreadable` that says which facts could not be read */
export async function readHardware(sources: HardwareSources = MACHINE): Promise<HardwareReading> {
  const unread = new Map<Fact, string>();
  const causes: unknown[] = [];
  const orUnread = async <T>(fact: Fact, reading: Promise<T>): Promise<T | undefined> =>
    await reading.catch((error: unknown) => {
      unread.set(fact, error instanceof UntoldError ? error.message : 'the system refused it; the log has its error');
      causes.push(error);
      return undefined;
    });
  const [cpu, gpu, memoryBytes, driveSerials] = await Promise.all([
    orUnread('CPU', readCpu(sources)),
    orUnread('GPU', readGraphics(sources)),
    orUnread('Memory', readMemory(sources)),
    orUnread('DriveSerial', readDriveSerials(sources)),
  ]);
  if (cpu === undefined || gpu === undefined || memoryBytes === undefined || driveSerials === undefined) {
    throw hardwareUnreadable(unread, causes[0]);
  }
  const named = [['CPU', cpu] as const, ['GPU', gpu] as const];
  return {
    facts: {
      cpu: { ids: cpu.ids, models: cpu.models },
      gpu: { ids: gpu.ids, models: gpu.models },
      memoryBytes,
      driveSerials,
    },
    untold: new Map(named.flatMap(([fact, { untold }]) => (untold === undefined ? [] : [[fact, untold]]))),
    remarks: named.flatMap(([, { remark }]) => remark ?? []),
  };
}

/** The error that names each fact that is missing, and what to do. */
export function hardwareUnreadable(reasons: ReadonlyMap<Fact, string>, cause?: unknown): LoaderError {
  const list = FACTS.filter((fact) => reasons.has(fact)).map((fact) => `${fact}: ${reasons.get(fact) ?? ''}.`);
  return new LoaderError(
    'hardware_unreadable',
    `The hardware of this machine could not be read. ${list.join(' ')} Or set HARDWARE_ID to a string that stays the same.`,
    { cause },
  );
}

/** Reads the CPU. @throws the system's error without /proc/cpuinfo */
export async function readCpu(sources: HardwareSources): Promise<NamedReading> {
  const cpuinfo = await readFile(path.join(sources.procRoot, 'cpuinfo'), 'utf8');
  return cpuOf(cpuinfo, await orUntold(askTwice(sources, async () => lscpuModels(await sources.runTool('lscpu')))));
}

/**
 * Reads the graphics cards on PCI. The kernel tells which there are, `lspci` only what they are called: without lspci the
 * names are missing, but never a card. The graphics unit of a system on a chip (Jetson, Raspberry Pi, Rockchip) is not on
 * PCI and does not count, with whatever tools are installed.
 *
 * @throws UntoldError, or the system's error, when the kernel's list can't be read
 */
export async function readGraphics(sources: HardwareSources): Promise<NamedReading> {
  const cards = await askTwice(sources, () => new Sysfs(sources.sysRoot).graphicsCards());
  const ids = sortedSet(cards.map((card) => card.id));
  if (cards.length === 0) return { ids, models: [] };
  const models = await orUntold(
    askTwice(sources, async () => lspciModels(cards, await sources.runTool('lspci', '-Dvmm'))),
  );
  return models instanceof UntoldError ? { ids, models: [], untold: models.message } : { ids, models };
}

/** Reads the serials of the fixed disks. @throws UntoldError, or the system's error, when they can't be read */
export async function readDriveSerials(sources: HardwareSources): Promise<readonly (string | null)[]> {
  return await askTwice(sources, () => new Sysfs(sources.sysRoot).driveSerials());
}

async function readMemory(sources: HardwareSources): Promise<number> {
  return await askTwice(sources, async () => {
    const bytes = await sources.readMemory();
    if (bytes > 0) return bytes;
    throw new UntoldError('the kernel does not tell how much there is: see MemTotal in /proc/meminfo');
  });
}

/** Asks a source, and once more after a short pause if it fails. @throws the error of the second time */
async function askTwice<T>({ pauseMs }: HardwareSources, ask: () => Promise<T>): Promise<T> {
  const failures = new RetryCounter({ attempts: 2, baseDelayMs: pauseMs, isRetryable: () => true });
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      await failures.pauseOrThrow(error, NEVER);
    }
  }
}

/** What `reading` gives, or the error of a source that tells nothing. @throws any other error */
async function orUntold<T>(reading: Promise<T>): Promise<T | UntoldError> {
  return await reading.catch((error: unknown) => {
    if (error instanceof UntoldError) return error;
    throw error;
  });
}

/**
 * Runs a program that tells about the hardware, and returns what it prints. It has ten seconds and 1 MiB for that.
 *
 * @throws UntoldError when it is not there, fails, hangs or prints more
 */
export async function runTool(tool: Tool, options = ''): Promise<string> {
  try {
    // The shell sets the language, since names of fields are translated. The rest of the environment holds no secret:
    // src/config has removed them.
    return await runProgram(`export LC_ALL=C; exec ${tool} ${options}`, TOOL_BOUNDS);
  } catch (error) {
    throw error instanceof ProgramError ? new UntoldError(reasonOf(tool, error), { cause: error.cause }) : error;
  }
}

function reasonOf(tool: Tool, { kind }: ProgramError): string {
  if (kind === 'absent') return `${tool} is not installed: install the package ${PACKAGES[tool]}`;
  const how = kind === 'late' ? `did not end within ${TOOL_BOUNDS.timeoutMs / 1000} s` : 'failed';
  return `${tool} ${how}: run it in a shell, and install the package ${PACKAGES[tool]} if it is that of another one`;
}
