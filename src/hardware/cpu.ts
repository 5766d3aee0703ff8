import { sortedSet } from './hardware-facts.ts';
import type { NamedReading } from './named-reading.ts';
import { UntoldError } from './untold-error.ts';

/** Lines of /proc/cpuinfo that name a CPU or its board where no program knows the CPU: RISC-V, Raspberry Pi, Rockchip. */
const BOARD_LINES = ['uarch', 'Model', 'Hardware'] as const;

/**
 * The CPU of a machine, as /proc/cpuinfo and lscpu tell it. `models` are the names that lscpu has, or why it has none.
 *
 * On ARM they come from a table in lscpu, so /proc/cpuinfo, which lacks them, can't take its place; on x86 lscpu itself
 * takes them from there.
 */
export function cpuOf(cpuinfoText: string, models: readonly string[] | UntoldError): NamedReading {
  const cpuinfo = parseCpuinfo(cpuinfoText);
  const ids = sortedSet(cpuinfo.armIds);
  if (!(models instanceof UntoldError)) return { ids, models };
  const isUnknown = models instanceof UnknownCpuError;
  const names = isUnknown || cpuinfo.isX86 ? namesIn(cpuinfo, isUnknown) : [];
  if (names.length === 0) return { ids, models: [], untold: models.message };
  return { ids, models: names, remark: `The CPU's name is that of /proc/cpuinfo, since ${models.message}` };
}

/** lscpu has run, but has no name. */
class UnknownCpuError extends UntoldError {}

/** The names that lscpu prints as "Model name", whole. @throws UntoldError when there is none */
export function lscpuModels(output: string): readonly string[] {
  // "BIOS Model name" is another field, and only root sees it.
  const models = output.split('\n').map((line) => /^\s*Model name:(.*)$/.exec(line)?.[1] ?? '');
  const told = sortedSet(models.map((model) => model.trim()).filter(isTold));
  if (told.length === 0) throw new UnknownCpuError('lscpu does not know this CPU: update util-linux');
  return told;
}

interface Cpuinfo {
  readonly isX86: boolean;
  readonly armIds: readonly string[];
  /** All values of each line. */
  readonly values: ReadonlyMap<string, readonly string[]>;
}

function parseCpuinfo(text: string): Cpuinfo {
  const values = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const [, name, value] = /^([^:]*?)\s*:(.*)$/.exec(line) ?? [];
    if (name === undefined || value === undefined) continue;
    const sofar = values.get(name) ?? [];
    values.set(name, [...sofar, value.trim()]);
  }
  const parts = values.get('CPU part') ?? [];
  const armIds = (values.get('CPU implementer') ?? []).map((implementer, at) => `${implementer}:${parts[at] ?? ''}`);
  return { isX86: values.has('vendor_id'), armIds, values };
}

/** The names of the CPU; without any, with `orBoard`, the first kind of line that names the board. */
function namesIn({ values }: Cpuinfo, orBoard: boolean): readonly string[] {
  for (const name of orBoard ? ['model name', ...BOARD_LINES] : ['model name']) {
    const told = sortedSet((values.get(name) ?? []).filter(isTold));
    if (told.length > 0) return told;
  }
  return [];
}

/** False for what tools and firmware print in place of a name. */
function isTold(name: string): boolean {
  return name !== '' && name !== '-' && name.toLowerCase() !== 'unknown';
}
