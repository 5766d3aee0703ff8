import { sortedSet, type NamedReading } from './hardware-facts.ts';
import type { UntoldError } from './untold-error.ts';

/** PCI's base class of VGA, 3D and other display controllers. */
const DISPLAY_CLASS = '0x03';

/** A device on PCI; what it lacks is undefined. */
export interface PciDevice {
  /** With the domain, such as `0000:01:00.0`. */
  readonly address: string;
  readonly class: string | undefined;
  readonly vendor: string | undefined;
  readonly device: string | undefined;
}

export interface GraphicsCard {
  readonly address: string;
  readonly id: string;
}

/**
 * The graphics cards among the devices on PCI. The graphics unit of a system on a chip (Jetson, Raspberry Pi, Rockchip)
 * is not on PCI and does not count, with whatever tools are installed.
 */
export function graphicsCards(devices: readonly PciDevice[]): readonly GraphicsCard[] {
  return devices.flatMap(({ address, class: kind, vendor, device }) => {
    const isCard = kind?.startsWith(DISPLAY_CLASS) === true && vendor !== undefined && device !== undefined;
    return isCard ? { address, id: `${vendor}:${device}` } : [];
  });
}

/**
 * Cards with their names, by what `lspci -Dvmm` printed or why it printed nothing. The kernel tells which cards there
 * are, lspci only what they are called: without lspci the names are missing, but never a card.
 */
export function nameGraphics(cards: readonly GraphicsCard[], lspci: string | UntoldError): NamedReading {
  const ids = sortedSet(cards.map((card) => card.id));
  if (typeof lspci !== 'string') return { ids, models: [], untold: lspci.message };
  const names = parseLspci(lspci);
  const nameOf = ({ address }: GraphicsCard) => names.get(address) ?? '';
  const nameless = cards.find((card) => nameOf(card) === '');
  if (nameless === undefined) return { ids, models: sortedSet(cards.map(nameOf)) };
  const untold = `lspci does not list the card at ${nameless.address}: see what lspci -Dvmm prints`;
  return { ids, models: [], untold };
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
