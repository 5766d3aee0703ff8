import { setTimeout as sleep } from 'node:timers/promises';
import { LoaderError } from '../errors.ts';
import { nameCpu } from './cpu.ts';
import { driveSerials } from './drive-serials.ts';
import { graphicsCards, nameGraphics } from './graphics.ts';
import { FACTS, type Fact, type HardwareFacts, type NamedReading } from './hardware-facts.ts';
import { Machine } from './machine.ts';
import { UntoldError } from './untold-error.ts';

/** What was read of this machine. */
export interface HardwareReading {
  readonly facts: HardwareFacts;
  /** Why CPU or GPU have no models in `facts`, though their IDs are known. */
  readonly untold: ReadonlyMap<Fact, string>;
  /** What a person should know, though the facts are whole. */
  readonly remarks: readonly string[];
}

/** The pause before a fact that was not told is read once more, in ms. */
const PAUSE_MS = 250;

/** Reads the facts of a machine. @throws LoaderError `hardware_unreadable` that says which facts could not be read */
export async function readHardware(machine = new Machine(), pauseMs = PAUSE_MS): Promise<HardwareReading> {
  const unread = new Map<Fact, string>();
  const causes: unknown[] = [];
  const orUnread = async <T>(fact: Fact, reading: Promise<T>): Promise<T | undefined> =>
    await reading.catch((error: unknown) => {
      unread.set(fact, error instanceof UntoldError ? error.message : 'the system refused it; the log has its error');
      causes.push(error);
      return undefined;
    });
  const [cpu, gpu, memoryBytes, serials] = await Promise.all([
    orUnread(
      'CPU',
      readTwice(pauseMs, async () => await readCpu(machine), isTold),
    ),
    orUnread(
      'GPU',
      readTwice(pauseMs, async () => await readGraphics(machine), isTold),
    ),
    orUnread(
      'Memory',
      readTwice(pauseMs, async () => await readMemory(machine)),
    ),
    orUnread(
      'DriveSerial',
      readTwice(pauseMs, async () => driveSerials(await machine.blockDevices())),
    ),
  ]);
  if (cpu === undefined || gpu === undefined || memoryBytes === undefined || serials === undefined) {
    throw hardwareUnreadable(unread, causes[0]);
  }
  const named = [['CPU', cpu] as const, ['GPU', gpu] as const];
  return {
    facts: {
      cpu: { ids: cpu.ids, models: cpu.models },
      gpu: { ids: gpu.ids, models: gpu.models },
      memoryBytes,
      driveSerials: serials,
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

/** Reads a fact, and once more after a pause if that fails or it is not whole. @throws the error of the second time */
async function readTwice<T>(
  pauseMs: number,
  read: () => Promise<T>,
  isWhole: (fact: T) => boolean = () => true,
): Promise<T> {
  try {
    const fact = await read();
    if (isWhole(fact)) return fact;
  } catch {
    // If it fails again, that error is told.
  }
  await sleep(pauseMs);
  return await read();
}

function isTold({ untold, remark }: NamedReading): boolean {
  return untold === undefined && remark === undefined;
}

async function readCpu(machine: Machine): Promise<NamedReading> {
  return nameCpu(await machine.cpuinfo(), await orUntold(machine.toolOutput('lscpu')));
}

async function readGraphics(machine: Machine): Promise<NamedReading> {
  const cards = graphicsCards(await machine.pciDevices());
  return nameGraphics(cards, cards.length === 0 ? '' : await orUntold(machine.toolOutput('lspci', '-Dvmm')));
}

async function readMemory(machine: Machine): Promise<number> {
  const bytes = await machine.memoryBytes();
  if (bytes > 0) return bytes;
  throw new UntoldError('the kernel does not tell how much there is: see MemTotal in /proc/meminfo');
}

/** What a program printed, or why it printed nothing. */
async function orUntold(output: Promise<string>): Promise<string | UntoldError> {
  try {
    return await output;
  } catch (error) {
    if (error instanceof UntoldError) return error;
    throw error;
  }
}
