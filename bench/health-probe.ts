import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

export interface HealthProbeData {
  readonly url: string;
  readonly intervalMs: number;
}

export interface HealthProbeReport {
  readonly latenciesMs: readonly number[];
  readonly failures: readonly string[];
}

const INTERVAL_MS = 10;

/** A client that asks for /health 100 times a second, in a thread of its own: nothing but the Loader may delay it. */
export class HealthProbe {
  readonly #worker: Worker;

  private constructor(worker: Worker) {
    this.#worker = worker;
  }

  static async start(loaderUrl: string): Promise<HealthProbe> {
    const workerData: HealthProbeData = { url: `${loaderUrl}/health`, intervalMs: INTERVAL_MS };
    const worker = new Worker(new URL('health-probe-worker.ts', import.meta.url), { workerData });
    await once(worker, 'message');
    return new HealthProbe(worker);
  }

  /** Ends it, and answers the latencies in ms. @throws Error when any answer was not 200 */
  async stop(): Promise<readonly number[]> {
    const reported = once(this.#worker, 'message');
    this.#worker.postMessage('stop');
    const [report] = (await reported) as [HealthProbeReport];
    if (report.failures.length > 0) throw new Error(`/health failed: ${report.failures.slice(0, 3).join('; ')}`);
    return report.latenciesMs;
  }
}
