import { sha256 } from '../sha256.ts';
import type { Fault, SeenRequest } from './fault-proxy.ts';
import { uploadIdOf } from './s3-request.ts';

/** A fault and the kinds of requests that it may meet. */
export interface ScheduledFault<Kind extends string> {
  readonly meets: readonly Kind[];
  readonly fault: Fault;
  /** Once met, it meets all requests of the same upload that it may. */
  readonly isOfUpload?: boolean;
  /** Once met, it meets all requests for so many ms. */
  readonly lastsMs?: number;
}

export interface FaultScheduleOptions<Kind extends string> {
  readonly seed: number;
  /** By name. */
  readonly faults: Readonly<Record<string, ScheduledFault<Kind>>>;
  readonly kindOf: (request: SeenRequest) => Kind;
  /** The fraction of the requests that a fault meets. */
  readonly chance: number;
  /** Faults that are begun; no more than these, so that a transfer can end. */
  readonly most: number;
}

/**
 * Faults for an S3 server or a Resource API, drawn by a seed: `proxy.fault = schedule.fault`.
 *
 * What meets a request depends on the seed, the request and how often it came, and not on the order of requests that run
 * side by side: so a schedule that found a mistake finds it again.
 */
export class FaultSchedule<Kind extends string> {
  /** What was met, for the message of a test that fails. */
  readonly met: { readonly name: string; readonly request: string }[] = [];
  readonly #options: FaultScheduleOptions<Kind>;
  readonly #times = new Map<string, number>();
  /** The fault of an upload, by its ID and name. */
  readonly #ofUploads = new Map<string, ScheduledFault<Kind>>();
  #lasting: { readonly fault: Fault; readonly untilMs: number } | undefined;

  constructor(options: FaultScheduleOptions<Kind>) {
    this.#options = options;
  }

  readonly fault = (request: SeenRequest): Fault => {
    const kind = this.#options.kindOf(request);
    const id = uploadIdOf(request);
    const ofUpload = id === undefined ? undefined : this.#ofUploads.get(id);
    if (ofUpload?.meets.includes(kind) === true) return ofUpload.fault;
    if (this.#lasting !== undefined && performance.now() < this.#lasting.untilMs) return this.#lasting.fault;
    const text = `${request.method} ${pathOf(request)} ${request.headers.range ?? ''}`;
    const times = this.#times.get(text) ?? 0;
    this.#times.set(text, times + 1);
    const possible = Object.entries(this.#options.faults).filter(([, { meets }]) => meets.includes(kind));
    const draw = (what: string) => parseInt(sha256(`${this.#options.seed} ${what} ${times} ${text}`).slice(0, 8), 16);
    if (this.met.length >= this.#options.most || draw('whether') / 2 ** 32 >= this.#options.chance) return PASS;
    const [name, fault] = possible[draw('which') % Math.max(1, possible.length)] ?? [];
    if (name === undefined || fault === undefined) return PASS;
    this.met.push({ name, request: text });
    if (fault.isOfUpload === true && id !== undefined) this.#ofUploads.set(id, fault);
    if (fault.lastsMs !== undefined) this.#lasting = { fault: fault.fault, untilMs: performance.now() + fault.lastsMs };
    return fault.fault;
  };
}

const PASS: Fault = { kind: 'pass' };

/** Without the ID of an upload, which is another one each time. */
function pathOf({ url }: SeenRequest): string {
  const { pathname, searchParams } = new URL(url, 'http://host');
  return `${pathname} ${searchParams.get('partNumber') ?? ''}`;
}
