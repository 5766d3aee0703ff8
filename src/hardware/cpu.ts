import { sortedSet, type NamedReading } from './hardware-facts.ts';
import type { UntoldError } from './untold-error.ts';

/** Lines of /proc/cpuinfo that name a CPU or its board where no program knows the CPU: RISC-V, Raspberry Pi, Rockchip. */
const BOARD_LINES = ['uarch', 'Model', 'Hardware'] as const;

/** All values of each line of /proc/cpuinfo. */
type Cpuinfo = ReadonlyMap<string, readonly string[]>;

/**
 * The CPU by /proc/cpuinfo, and by what lscpu printed or why it printed nothing. Its names are those that lscpu prints as
 * "Model name", whole. On ARM they come from a table in lscpu, so /proc/cpuinfo, which lacks them, can't take its place;
 * on x86 lscpu itself takes them from there.
 */
export function nameCpu(cpuinfoText: string, lscpu: string | UntoldError): NamedReading {
  const cpuinfo = parseCpuinfo(cpuinfoText);
  const ids = armIds(cpuinfo);
  const hasRun = typeof lscpu === 'string';
  const named = hasRun ? lscpuModels(lscpu) : [];
  if (named.length > 0) return { ids, models: named };
  const reason = hasRun ? 'lscpu does not know this CPU: update util-linux' : lscpu.message;
  // An lscpu that has not run may know the CPU by another name than that of its board.
  const models = hasRun || cpuinfo.has('vendor_id') ? namesIn(cpuinfo, hasRun) : [];
  if (models.length === 0) return { ids, models, untold: reason };
  return { ids, models, remark: `The CPU's name is that of /proc/cpuinfo, since ${reason}` };
}

function lscpuModels(output: string): readonly string[] {
  // "BIOS Model name" is another field, and only root sees it.
  const models = output.split('\n').map((line) => /^\s*Model name:(.*)$/.exec(line)?.[1] ?? '');
  return sortedSet(models.map((model) => model.trim()).filter(isTold));
}

function parseCpuinfo(text: string): Cpuinfo {
  const values = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const [, name, value] = /^([^:]*?)\s*:(.*)$/.exec(line) ?? [];
    if (name === undefined || value === undefined) continue;
    const sofar = values.get(name) ?? [];
    values.set(name, [...sofar, value.trim()]);
  }
  return values;
}

function armIds(cpuinfo: Cpuinfo): readonly string[] {
  const parts = cpuinfo.get('CPU part') ?? [];
  return sortedSet(
    (cpuinfo.get('CPU implementer') ?? []).map((implementer, at) => `${implementer}:${parts[at] ?? ''}`),
  );
}

/** The names of the CPU; without any, with `orBoard`, the first kind of line that names the board. */
function namesIn(cpuinfo: Cpuinfo, orBoard: boolean): readonly string[] {
  for (const name of orBoard ? ['model name', ...BOARD_LINES] : ['model name']) {
    const told = sortedSet((cpuinfo.get(name) ?? []).filter(isTold));
    if (told.length > 0) return told;
  }
  return [];
}

/** False for what tools and firmware print in place of a name. */
function isTold(name: string): boolean {
  return name !== '' && name !== '-' && name.toLowerCase() !== 'unknown';
}
