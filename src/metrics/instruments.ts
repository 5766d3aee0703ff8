import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

/** Seconds, from a health check to a load of gigabytes. */
const REQUEST_BUCKETS = [0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 1800];
/** Seconds, from an answer nearby to the longest UPSTREAM_TIMEOUT_MS that is common. */
const CALL_BUCKETS = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
/** How finely the lag of the event loop is measured, in ms: 50 timers a second cost nothing that could be seen. */
const LAG_PRECISION_MS = 20;

/** Gauges of prom-client whose names are for counters, as promtool tells. Each sums up another one by its labels. */
const MISNAMED = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total'];

/**
 * The metrics in prom-client's form. Names and labels follow the practice of Prometheus (prometheus.io/docs/practices).
 *
 * Every label has a bound: routes, codes, providers and states are lists in the code, and no resource, user or host is one.
 */
export class Instruments {
  readonly registry = new Registry();
  readonly #shared = { registers: [this.registry] };

  readonly info = new Gauge({
    name: 'loader_build_info',
    help: 'Always 1: the labels tell the version of the Loader.',
    labelNames: ['version'],
    ...this.#shared,
  });
  readonly requests = new Histogram({
    name: 'loader_http_request_duration_seconds',
    help: 'Requests by their route and status, from their headers to the last byte of their response.',
    labelNames: ['method', 'route', 'status'],
    buckets: REQUEST_BUCKETS,
    ...this.#shared,
  });
  readonly failures = new Counter({
    name: 'loader_http_request_failures_total',
    help: 'Requests that were refused, failed or broken off, by the code of their error.',
    labelNames: ['route', 'code'],
    ...this.#shared,
  });
  readonly sentBytes = new Counter({
    name: 'loader_resource_sent_bytes_total',
    help: 'Bytes of resources that loads have sent to clients, by where the big part came from.',
    labelNames: ['source'],
    ...this.#shared,
  });
  readonly receivedBytes = new Counter({
    name: 'loader_resource_received_bytes_total',
    help: 'Bytes of resources that uploads have taken from clients.',
    ...this.#shared,
  });
  readonly calls = new Histogram({
    name: 'loader_upstream_call_duration_seconds',
    help: 'Calls to the Resource API and the CDN, from their begin to the headers of the answer.',
    labelNames: ['upstream', 'method', 'status'],
    buckets: CALL_BUCKETS,
    ...this.#shared,
  });
  readonly callFaults = new Counter({
    name: 'loader_upstream_call_faults_total',
    help: 'Calls to the Resource API and the CDN that got no answer, or not the whole of it, by the reason.',
    labelNames: ['upstream', 'fault'],
    ...this.#shared,
  });
  readonly logins = new Counter({
    name: 'loader_logins_total',
    help: 'Logins to the Resource API: ok, or the code of the failure.',
    labelNames: ['outcome'],
    ...this.#shared,
  });
  readonly unlocks = new Counter({
    name: 'loader_unlocks_total',
    help: 'Runs of the unlock that have ended: ready, or the code of the failure.',
    labelNames: ['outcome'],
    ...this.#shared,
  });
  readonly tasks = new Counter({
    name: 'loader_tasks_total',
    help: 'Tasks that have ended, by provider and status.',
    labelNames: ['provider', 'status'],
    ...this.#shared,
  });

  readonly isReady = this.#gauge('loader_ready', 'Whether all of its work can be done, as GET /ready tells: 1 or 0.');
  readonly isLoggedIn = this.#gauge('loader_logged_in', 'Whether a user is logged in: 1 or 0.');
  readonly unlockState = this.#gauge('loader_unlock_state', 'The state of the unlock: 1 for the one that it has.', [
    'state',
  ]);
  readonly tasksRunning = this.#gauge('loader_tasks_running', 'Tasks in progress, by provider.', ['provider']);
  readonly engineIsReachable = this.#gauge(
    'loader_engine_reachable',
    'Whether the Docker engine answered the last call: 1 or 0; NaN before the first.',
  );
  readonly cacheBytes = this.#gauge(
    'loader_cache_bytes',
    'Bytes that the files of the cache take, as of the last 15 s.',
  );
  readonly cacheCopies = this.#gauge('loader_cache_copies', 'Copies of big parts in the cache, as of the last 15 s.');
  readonly cacheFreeBytes = this.#gauge(
    'loader_cache_free_bytes',
    "Bytes that the cache's disk has left; 0 where the folder can't be used.",
  );
  readonly memoryBudget = this.#gauge('loader_work_memory_budget_bytes', 'MEMORY_BUDGET_MB in bytes.');
  readonly memoryHeld = this.#gauge('loader_work_memory_held_bytes', 'What uploads and transfers hold of the budget.');
  readonly memoryWaiting = this.#gauge(
    'loader_work_memory_waiting',
    'Uploads and transfers that wait for a share of it.',
  );
  readonly clockOffset = this.#gauge(
    'loader_clock_offset_seconds',
    'The time of the servers upstream minus that of the device; NaN before their first answer.',
  );
  readonly logLinesLost = new Counter({
    name: 'loader_log_lines_lost_total',
    help: 'Lines of the log that an output could not take.',
    labelNames: ['output'],
    ...this.#shared,
  });

  constructor() {
    collectDefaultMetrics({ register: this.registry, eventLoopMonitoringPrecision: LAG_PRECISION_MS });
    for (const name of MISNAMED) this.registry.removeSingleMetric(name);
  }

  #gauge<Label extends string = never>(name: string, help: string, labelNames: Label[] = []): Gauge<Label> {
    return new Gauge({ name, help, labelNames, ...this.#shared });
  }
}
