import path from 'node:path';
import { sortedSet } from './hardware-facts.ts';
import { askTwice, type HardwareSources } from './hardware-sources.ts';
import type { NamedReading } from './named-reading.ts';
import { Sysfs } from './sysfs.ts';
import { UntoldError } from './untold-error.ts';

const PCI_DEVICES = 'bus/pci/devices';
/** PCI's base class of VGA, 3D and other display controllers. */
const DISPLAY_CLASS = '0x03';

interface Card {
  /** With the domain, such as `0000:01:00.0`. */
  readonly address: string;
  readonly id: string;
}

/**
 * Reads the graphics cards on PCI. The kernel tells which there are, `lspci` only what they are called: without lspci the
 * names are missing, but never a card. The graphics unit of a system on a chip (Jetson, Raspberry Pi, Rockchip) is not on
 * PCI and does not count, with whatever tools are installed.
 *
 * @throws UntoldError, or the system's error, when the kernel's list can't be read
 */
export async function readGraphics(sources: HardwareSources): Promise<NamedReading> {
  const cards = await askTwice(sources, () => listCards(new Sysfs(sources.sysRoot)));
  const ids = sortedSet(cards.map((card) => card.id));
  if (cards.length === 0) return { ids, models: [] };
  try {
    const models = await askTwice(sources, async () => {
      const names = parseLspci(await sources.runTool('lspci', '-Dvmm'));
      return cards.map(({ address }) => nameOf(address, names));
    });
    return { ids, models: sortedSet(models) };
  } catch (error) {
    if (!(error instanceof UntoldError)) throw error;
    return { ids, models: [], untold: error.message };
  }
}

async function listCards(sysfs: Sysfs): Promise<readonly Card[]> {
  const cards: Card[] = [];
  for (const address of await sysfs.list(PCI_DEVICES)) {
    const device = path.join(PCI_DEVICES, address);
    if ((await sysfs.attribute(device, 'class'))?.startsWith(DISPLAY_CLASS) !== true) continue;
    const vendor = await sysfs.attribute(device, 'vendor');
    const product = await sysfs.attribute(device, 'device');
    if (vendor !== undefined && product !== undefined) cards.push({ address, id: `${vendor}:${product}` });
  }
  return cards;
}

/** The names of devices by address, from records of lines such as `Device:\tGA102 [GeForce RTX 3090]`. */
function parseLspci(output: string): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const record of output.split(/\n\s*\n/)) {
    const field = (name: string) => new RegExp(`^${name}:(.*)$`, 'm').exec(record)?.[1]?.trim() ?? '';
    names.set(field('Slot'), field('Device'));
  }
  return names;
}

/** @throws UntoldError */
function nameOf(address: string, names: ReadonlyMap<string, string>): string {
  const name = names.get(address) ?? '';
  if (name === '') throw new UntoldError(`lspci does not list the card at ${address}: see what lspci -Dvmm prints`);
  return name;
}
