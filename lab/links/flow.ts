import type { Agenda } from './agenda.ts';
import type { Bottleneck } from './bottleneck.ts';
import { CongestionWindow, SEGMENT_LENGTH } from './congestion-window.ts';
import { roundTripMs, type LinkShape } from './link-shape.ts';

/** Where the bytes of a flow arrive. */
export interface FlowEnd {
  /** Takes bytes; false when it wants no more before `Flow.drain`. */
  readonly write: (bytes: Buffer) => boolean;
  readonly end: () => void;
  readonly reset: () => void;
}

export interface FlowOptions {
  readonly agenda: Agenda;
  readonly bottleneck: Bottleneck;
  readonly shape: () => LinkShape;
  /** From 0 to 1, for losses. */
  readonly random: () => number;
  /** The first byte is not sent before. */
  readonly startsAtMs: number;
  readonly to: FlowEnd;
  /** The source may send again after `push` has returned false. */
  readonly onRoom: () => void;
  readonly onLoss: () => void;
}

/** Bytes that wait for the window. More stay with the source. */
const MAX_WAITING = 256 * 1024;
/** Bytes that are sent at once, so that connections take turns and pieces are not too many. */
const MAX_PIECE = 32 * 1024;
/** How long an outage lasts for a connection beyond its end: the sender does not know of it. */
const AFTER_OUTAGE_MS = 200;

/** One direction of one connection over a link. All times are those of the agenda, in ms. */
export class Flow {
  readonly #options: FlowOptions;
  readonly #window: CongestionWindow;
  /** Not yet sent. */
  readonly #waiting: Buffer[] = [];
  #waitingLength = 0;
  #inFlight = 0;
  /** When the last piece arrives: none arrives before an earlier one. */
  #lastArrivalMs: number;
  #idleSinceMs: number;
  /** Bytes that have arrived and whose receiver has not taken them. */
  #untaken: number | undefined;
  #ending: (() => void) | undefined;
  /** What should have arrived during a silent outage. */
  readonly #stuck: ((nowMs: number) => void)[] = [];

  constructor(options: FlowOptions) {
    this.#options = options;
    this.#window = new CongestionWindow(() => roundTripMs(options.shape()));
    this.#lastArrivalMs = options.startsAtMs;
    this.#idleSinceMs = options.startsAtMs;
    options.agenda.add(options.startsAtMs, (nowMs) => this.#send(nowMs));
  }

  /** Bytes that the sender may have under way now. */
  get windowLength(): number {
    return this.#window.length;
  }

  /** Takes bytes from the source; false when it must wait for `onRoom`. */
  push(bytes: Buffer, nowMs: number): boolean {
    this.#waiting.push(bytes);
    this.#waitingLength += bytes.length;
    if (nowMs >= this.#options.startsAtMs) this.#send(nowMs);
    return this.#waitingLength < MAX_WAITING;
  }

  /** The source has sent all. */
  end(nowMs: number): void {
    this.#ending = () => this.#options.to.end();
    if (nowMs >= this.#options.startsAtMs) this.#send(nowMs);
  }

  /** The source is gone; what it did not send is lost. */
  reset(nowMs: number): void {
    this.#waiting.length = 0;
    this.#waitingLength = 0;
    this.#ending = () => this.#options.to.reset();
    this.#send(Math.max(nowMs, this.#options.startsAtMs));
  }

  /** The receiver has taken all that arrived. */
  drain(nowMs: number): void {
    const length = this.#untaken;
    if (length === undefined) return;
    this.#untaken = undefined;
    this.#acknowledgeLater(length, nowMs);
  }

  /** A silent outage is over. */
  recover(nowMs: number): void {
    if (this.#stuck.length === 0) return;
    this.#window.resume(Infinity);
    this.#lastArrivalMs = Math.max(this.#lastArrivalMs, nowMs + AFTER_OUTAGE_MS);
    for (const work of this.#stuck.splice(0)) this.#arriveAt(nowMs + AFTER_OUTAGE_MS, work);
  }

  #send(nowMs: number): void {
    const { bottleneck, shape } = this.#options;
    if (this.#inFlight === 0) this.#window.resume(nowMs - this.#idleSinceMs);
    while (this.#waitingLength > 0) {
      const room = this.#window.length - this.#inFlight;
      // Without a least length, each turn of the window would cut the pieces into smaller ones.
      const least = Math.min(this.#waitingLength, MAX_PIECE, Math.max(SEGMENT_LENGTH, this.#window.length / 8));
      if (room < least) return;
      const length = Math.min(this.#waitingLength, MAX_PIECE, Math.floor(room));
      const buffers = this.#take(length);
      this.#setInFlight(this.#inFlight + length);
      // A queue holds what the link carries in one round trip.
      const isFull = bottleneck.queueMs(nowMs) > roundTripMs(shape());
      if (isFull && this.#inFlight >= bottleneck.fairShare) this.#window.congest(nowMs);
      const arrivalMs = bottleneck.send(length, nowMs) + shape().delayMs + this.#repair(length, nowMs);
      this.#lastArrivalMs = Math.max(this.#lastArrivalMs, arrivalMs);
      this.#arriveAt(this.#lastArrivalMs, (dueMs) => this.#arrive(buffers, length, dueMs));
    }
    const ending = this.#ending;
    if (ending === undefined) return;
    this.#ending = undefined;
    this.#lastArrivalMs = Math.max(this.#lastArrivalMs, nowMs + shape().delayMs);
    this.#arriveAt(this.#lastArrivalMs, ending);
  }

  #arriveAt(arrivalMs: number, work: (nowMs: number) => void): void {
    const { agenda, shape } = this.#options;
    agenda.add(arrivalMs, (nowMs) => {
      if (shape().outage === 'silent') this.#stuck.push(work);
      else work(nowMs);
    });
  }

  #setInFlight(length: number): void {
    this.#options.bottleneck.count(length, this.#inFlight);
    this.#inFlight = length;
  }

  #take(length: number): Buffer[] {
    const taken: Buffer[] = [];
    this.#waitingLength -= length;
    while (length > 0) {
      const [first] = this.#waiting;
      if (first === undefined) break;
      if (first.length > length) {
        this.#waiting[0] = first.subarray(length);
        taken.push(first.subarray(0, length));
        break;
      }
      this.#waiting.shift();
      taken.push(first);
      length -= first.length;
    }
    return taken;
  }

  /** Draws whether any segment gets lost. Returns how long it takes to send it again, in ms. */
  #repair(length: number, nowMs: number): number {
    const { random, shape, onLoss } = this.#options;
    const { loss = 0 } = shape();
    if (loss === 0 || random() > 1 - (1 - loss) ** Math.ceil(length / SEGMENT_LENGTH)) return 0;
    onLoss();
    this.#window.congest(nowMs);
    return roundTripMs(shape());
  }

  #arrive(buffers: readonly Buffer[], length: number, nowMs: number): void {
    let isTaken = true;
    for (const bytes of buffers) isTaken = this.#options.to.write(bytes) && isTaken;
    if (isTaken && this.#untaken === undefined) this.#acknowledgeLater(length, nowMs);
    else this.#untaken = (this.#untaken ?? 0) + length;
  }

  #acknowledgeLater(length: number, nowMs: number): void {
    const { agenda, shape, onRoom } = this.#options;
    agenda.add(nowMs + shape().delayMs, (dueMs) => {
      this.#window.acknowledge(length, this.#inFlight, dueMs);
      this.#setInFlight(this.#inFlight - length);
      if (this.#inFlight === 0) this.#idleSinceMs = dueMs;
      this.#send(dueMs);
      if (this.#waitingLength < MAX_WAITING) onRoom();
    });
  }
}
