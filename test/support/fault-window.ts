import { apiRequestKind, type ApiRequestKind } from '../../lab/faults/api-faults.ts';
import type { Fault, SeenRequest } from '../../lab/faults/fault-proxy.ts';
import { FaultSchedule, type ScheduledFault } from '../../lab/faults/fault-schedule.ts';
import { s3RequestKind, type S3RequestKind } from '../../lab/faults/s3-request.ts';
import type { LastingFault } from './lasting-faults.ts';

/** What is to go wrong, by a seed. */
export interface FaultPlan {
  readonly seed: number;
  readonly passingOfS3: Readonly<Record<string, ScheduledFault<S3RequestKind>>>;
  readonly passingOfApi: Readonly<Record<string, ScheduledFault<ApiRequestKind>>>;
  /** The fraction of the requests that a passing fault meets, and the number of those that begin at each server. */
  readonly chance: number;
  readonly most: number;
  readonly lasting: Lasting | undefined;
}

export type Lasting = {
  readonly name: string;
  /** The number of requests that it lets pass. */
  readonly after: number;
} & (
  | { readonly server: 's3'; readonly fault: LastingFault<S3RequestKind> }
  | { readonly server: 'api'; readonly fault: LastingFault<ApiRequestKind> }
);

/** The faults of one plan, for the proxies before an S3 server and an API. */
export class FaultWindow {
  /** The kinds of requests that the lasting fault met, in order. */
  readonly lastingMet: (S3RequestKind | ApiRequestKind)[] = [];
  readonly #plan: FaultPlan;
  readonly #ofS3: FaultSchedule<S3RequestKind>;
  readonly #ofApi: FaultSchedule<ApiRequestKind>;
  #hasCompleted = false;
  #meant = 0;

  constructor(plan: FaultPlan) {
    this.#plan = plan;
    const { seed, chance, most } = plan;
    this.#ofS3 = new FaultSchedule({ seed, chance, most, faults: plan.passingOfS3, kindOf: s3RequestKind });
    this.#ofApi = new FaultSchedule({ seed, chance, most, faults: plan.passingOfApi, kindOf: apiRequestKind });
  }

  /** Whether a Complete had come before the lasting fault met anything: then it meets the look after an upload. */
  isAfterUpload = false;

  /** What was met, for the message of a test that fails. */
  get met(): string[] {
    const lasting = this.#plan.lasting;
    const named = [...this.#ofS3.met, ...this.#ofApi.met].map(({ name, request }) => `${name} (${request})`);
    const [first] = this.lastingMet;
    return lasting === undefined || first === undefined
      ? named
      : [...named, `${lasting.server}: ${lasting.name} from ${first} on`];
  }

  /** The names of the passing faults that were met. */
  get names(): string[] {
    return [...this.#ofS3.met, ...this.#ofApi.met].map(({ name }) => name);
  }

  readonly s3Fault = (request: SeenRequest): Fault => {
    const kind = s3RequestKind(request);
    const { lasting } = this.#plan;
    if (lasting?.server === 's3' && this.#isMet(lasting.fault, kind, lasting.after, request))
      return lasting.fault.fault;
    if (kind === 'complete') this.#hasCompleted = true;
    return this.#ofS3.fault({ ...request, url: withoutBucket(request.url) });
  };

  readonly apiFault = (request: SeenRequest): Fault => {
    const kind = apiRequestKind(request);
    const { lasting } = this.#plan;
    if (lasting?.server === 'api' && this.#isMet(lasting.fault, kind, lasting.after, request))
      return lasting.fault.fault;
    return this.#ofApi.fault(request);
  };

  #isMet<Kind extends S3RequestKind | ApiRequestKind>(
    fault: LastingFault<Kind>,
    kind: Kind,
    after: number,
    request: SeenRequest,
  ): boolean {
    if (kind === 'abort' && fault.losesUpload === true && this.lastingMet.length > 0) return true;
    if (!fault.meets.includes(kind) || fault.only?.(request) === false) return false;
    if (this.#meant++ < after) return false;
    if (this.lastingMet.length === 0) this.isAfterUpload = this.#hasCompleted;
    this.lastingMet.push(kind);
    return true;
  }
}

/** Each run has a bucket of its own, and a seed must give the same faults in each. */
function withoutBucket(url: string): string {
  return url.replace(/^\/[^/?]*/, '/bucket');
}
