/** The parts of the hardware string, by their names in it (docs/protocol.md section 2). */
export const FACTS = ['CPU', 'GPU', 'Memory', 'DriveSerial'] as const;
export type Fact = (typeof FACTS)[number];

/** The CPU or the graphics cards: what they tell of themselves, and what databases call that. */
export interface NamedHardware {
  /** What the hardware tells of itself, unique and sorted. Empty where it tells nothing but a name. */
  readonly ids: readonly string[];
  /** Names of models, unique and sorted. */
  readonly models: readonly string[];
}

/** What was read of CPU or graphics cards. */
export interface NamedReading extends NamedHardware {
  /** Why there are no models, where there should be some. */
  readonly untold?: string;
  /** What a person should know, though there are models. */
  readonly remark?: string;
}

/** What the hardware string is made of. */
export interface HardwareFacts {
  /** Its IDs are ARM's implementer and part, `0x41:0xd0b`. On x86 the name comes from the CPU itself: there are none. */
  readonly cpu: NamedHardware;
  /** The IDs are PCI's vendor and device, `0x10de:0x2204`. */
  readonly gpu: NamedHardware;
  readonly memoryBytes: number;
  /** The serials of the fixed disks by device name; null for a disk without one. */
  readonly driveSerials: readonly (string | null)[];
}

export const GIB = 1024 ** 3;

/** The memory as it stands in the string. */
export function memoryGib({ memoryBytes }: HardwareFacts): number {
  return Math.round(memoryBytes / GIB);
}

/** The serial that stands in the string: that of the first fixed disk. */
export function firstSerial({ driveSerials }: HardwareFacts): string | null {
  return driveSerials[0] ?? null;
}

/** The canonical hardware string (docs/protocol.md section 2). */
export function formatHardwareString(facts: HardwareFacts): string {
  const cpu = facts.cpu.models.join(', ');
  const gpu = facts.gpu.models.join(', ') || 'none';
  return `CPU: ${cpu}. GPU: ${gpu}. Memory: ${memoryGib(facts)} GiB. DriveSerial: ${firstSerial(facts) ?? 'none'}`;
}

/** Unique and sorted, so that the order in which a tool lists them does not matter. */
export function sortedSet(texts: readonly string[]): readonly string[] {
  return [...new Set(texts)].sort();
}
