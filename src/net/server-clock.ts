export interface ServerClockOptions {
  /** Is called when signatures begin to take another time than that of this device, with the new offset in ms. */
  readonly onCorrection: (offsetMs: number) => void;
}

/** Beyond this a signature may have been refused for its time, in ms. Servers allow 5 to 15 minutes. */
const MAX_TOLERANCE_MS = 240_000;
/** Offsets that differ by less are the same, in ms: Date has whole seconds, and an answer takes its time. */
const SAME_MS = 5_000;

/**
 * How far the clock of this device is off, as the servers tell by their `Date`. An offset is the server's time minus
 * that of the device, in ms.
 *
 * What is signed takes the time of the device until a server refuses it. Other programs may have set their clocks by this
 * device, and a proxy may invent a Date.
 */
export class ServerClock {
  readonly #options: ServerClockOptions;
  #offsetMs: number | null = null;
  #correctionMs = 0;

  constructor(options: ServerClockOptions) {
    this.#options = options;
  }

  /** By the last answer that had a Date; null before the first one. It is exact to a second or two. */
  get offsetMs(): number | null {
    return this.#offsetMs;
  }

  /** What is added to the time of the device for a signature. */
  get correctionMs(): number {
    return this.#correctionMs;
  }

  /** Takes the Date of an answer that has just come. That of a cache is old. */
  note(headers: Readonly<Record<string, unknown>>): void {
    if (headers['age'] !== undefined) return;
    const offsetMs = offsetOf(headers['date']);
    if (offsetMs !== undefined) this.#offsetMs = offsetMs;
  }

  /**
   * Says whether a request that was refused is to be signed anew: its signature took `usedMs` as the correction, and the
   * server has another time. That time is then taken for all signatures.
   */
  corrects(refusal: ClockRefusal, usedMs: number): boolean {
    const offsetMs = offsetOf(refusal.serverTime);
    if (offsetMs === undefined) return false;
    this.#offsetMs = offsetMs;
    const tolerance = refusal.isAboutTime ? SAME_MS : MAX_TOLERANCE_MS;
    if (Math.abs(offsetMs - usedMs) <= tolerance) return false;
    // Of several requests that were refused at once, the first one has corrected the time for all.
    if (Math.abs(offsetMs - this.#correctionMs) > SAME_MS) {
      this.#correctionMs = offsetMs;
      this.#options.onCorrection(offsetMs);
    }
    return true;
  }
}

/** What a server that refused a signature says of the time. */
export interface ClockRefusal {
  /** A text that Date can read. */
  readonly serverTime: unknown;
  /** The server names the time as the reason. */
  readonly isAboutTime: boolean;
}

function offsetOf(serverTime: unknown): number | undefined {
  const time = typeof serverTime === 'string' ? Date.parse(serverTime) : NaN;
  return Number.isNaN(time) ? undefined : time - Date.now();
}
