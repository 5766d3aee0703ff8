import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

export interface RequestProbeOptions {
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Requests a second; 100 unless given. */
  readonly rate?: number;
}

export type RequestProbeData = Required<RequestProbeOptions>;

export interface RequestProbeReport {
  readonly latenciesMs: readonly number[];
  readonly failures: readonly string[];
}

const DEFAULT_RATE = 100;

/** A client that sends a GET at a fixed rate, in a thread of its own: nothing but the Loader may delay it. */
export class RequestProbe {
  readonly #worker: Worker;
  readonly #url: string;

  private constructor(worker: Worker, url: string) {
    this.#worker = worker;
    this.#url = url;
  }

  static async start({ url, headers = {}, rate = DEFAULT_RATE }: RequestProbeOptions): Promise<RequestProbe> {
    const workerData: RequestProbeData = { url, headers, rate };
    const worker = new Worker(new URL('request-probe-worker.ts', import.meta.url), { workerData });
    await once(worker, 'message');
    return new RequestProbe(worker, url);
  }

  /** Ends the probe and returns the latencies in ms. @throws Error when any answer was not 200 */
  async stop(): Promise<readonly number[]> {
    const reported = once(this.#worker, 'message');
    this.#worker.postMessage('stop');
    const [report] = (await reported) as [RequestProbeReport];
    if (report.failures.length > 0) throw new Error(`${this.#url} failed: ${report.failures.slice(0, 3).join('; ')}`);
    return report.latenciesMs;
  }
}
