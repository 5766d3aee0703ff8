import { LoaderError } from '../errors.ts';
import { FACTS, type Fact, type HardwareFacts } from './hardware-facts.ts';
import { askTwice, MACHINE, type HardwareSources } from './hardware-sources.ts';
import { readCpu } from './read-cpu.ts';
import { readDriveSerials } from './read-drive-serials.ts';
import { readGraphics } from './read-graphics.ts';
import { UntoldError } from './untold-error.ts';

/** What was read of this machine. */
export interface HardwareReading {
  readonly facts: HardwareFacts;
  /** Why CPU or GPU have no models in `facts`, though their IDs are known. */
  readonly untold: ReadonlyMap<Fact, string>;
  /** What a person should know, though the facts are whole. */
  readonly remarks: readonly string[];
}

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

async function readMemory(sources: HardwareSources): Promise<number> {
  return await askTwice(sources, async () => {
    const bytes = await sources.readMemory();
    if (bytes > 0) return bytes;
    throw new UntoldError('the kernel does not tell how much there is: see MemTotal in /proc/meminfo');
  });
}
