import { sortedSet } from './hardware-facts.ts';
import { UntoldError } from './untold-error.ts';

/** A graphics card on PCI. */
export interface GraphicsCard {
  /** With the domain, such as `0000:01:00.0`. */
  readonly address: string;
  /** Vendor and device. */
  readonly id: string;
}

/** The names of the cards in what `lspci -Dvmm` prints. @throws UntoldError when one is missing */
export function lspciModels(cards: readonly GraphicsCard[], output: string): readonly string[] {
  const names = parseLspci(output);
  return sortedSet(cards.map(({ address }) => nameOf(address, names)));
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
