import { firstSerial, GIB, memoryGib, type Fact, type HardwareFacts, type NamedHardware } from './hardware-facts.ts';
import type { HardwareReading } from './read-hardware.ts';

/** How hardware differs from what it was. */
export interface HardwareChange {
  /** What may change on the same machine: after an update of kernel, firmware or a database of names. */
  readonly byItself: readonly Fact[];
  /** What changes with the hardware only. */
  readonly real: readonly Fact[];
}

type Difference = 'none' | 'byItself' | 'real';

/** Compares what was read with the facts of the string that the server accepted last. */
export function compareHardware(kept: HardwareFacts, { facts, untold }: HardwareReading): HardwareChange {
  const differences: readonly (readonly [Fact, Difference])[] = [
    ['CPU', compareNamed(kept.cpu, facts.cpu, untold.has('CPU'))],
    ['GPU', compareNamed(kept.gpu, facts.gpu, untold.has('GPU'))],
    ['Memory', compareMemory(kept, facts)],
    ['DriveSerial', compareDrives(kept, facts)],
  ];
  const factsThat = (wanted: Difference) =>
    differences.filter(([, difference]) => difference === wanted).map(([fact]) => fact);
  return { byItself: factsThat('byItself'), real: factsThat('real') };
}

/** The same IDs may get other names from another version of lscpu or of PCI's database, and none without these. */
function compareNamed(kept: NamedHardware, now: NamedHardware, isUntold: boolean): Difference {
  if (!isUntold && areSame(kept.models, now.models)) return 'none';
  return kept.ids.length > 0 && areSame(kept.ids, now.ids) ? 'byItself' : 'real';
}

/** Kernel and firmware take more or less of it for themselves, which matters close to a half GiB. */
function compareMemory(kept: HardwareFacts, now: HardwareFacts): Difference {
  if (memoryGib(kept) === memoryGib(now)) return 'none';
  return Math.abs(kept.memoryBytes - now.memoryBytes) < GIB ? 'byItself' : 'real';
}

/** The kernel numbers disks as it finds them. */
function compareDrives(kept: HardwareFacts, now: HardwareFacts): Difference {
  const serial = firstSerial(kept);
  if (serial === firstSerial(now)) return 'none';
  // A disk without a serial can only be found again by all the others.
  const isFoundAgain =
    serial === null ? areSame(sortedSerials(kept), sortedSerials(now)) : now.driveSerials.includes(serial);
  return isFoundAgain ? 'byItself' : 'real';
}

function sortedSerials({ driveSerials }: HardwareFacts): readonly string[] {
  return driveSerials.map((serial) => serial ?? '').sort();
}

function areSame(some: readonly string[], others: readonly string[]): boolean {
  return some.length === others.length && some.every((text, at) => text === others[at]);
}
