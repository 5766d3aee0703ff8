/** What a link is like. It may be changed while bytes flow. */
export interface LinkShape {
  /** From one end to the other, in ms. A round trip takes twice as long. */
  readonly delayMs: number;
  /** Of all connections together, in each direction. */
  readonly bytesPerSecond: number;
  /** The fraction of the segments that get lost; 0 unless given. */
  readonly loss?: number;
  /**
   * `silent`: nothing arrives, and what was sent meanwhile arrives after the end of the outage, as TCP sends it again.
   * `reset`: connections are reset, new ones too. No outage unless given.
   */
  readonly outage?: 'none' | 'silent' | 'reset';
}

/** A good line to a data centre in another country: 50 ms, 400 Mbit/s. */
export const FAR_LINK: LinkShape = { delayMs: 25, bytesPerSecond: 50_000_000 };
/** A bad line: 200 ms, 20 Mbit/s. */
export const SLOW_LINK: LinkShape = { delayMs: 100, bytesPerSecond: 2_500_000 };

export function roundTripMs({ delayMs }: LinkShape): number {
  return 2 * delayMs;
}
