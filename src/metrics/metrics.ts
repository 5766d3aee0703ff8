import type { ErrorCode } from '../errors.ts';
import type { MeasuredCall } from '../net/measured-calls.ts';
import type { Instruments } from './instruments.ts';

/** A request that is over. */
export interface EndedRequest {
  readonly method: string;
  /** As it was registered, such as `/load/:filename`. */
  readonly route: string;
  /** Undefined where the client left before a response began. */
  readonly status: number | undefined;
  readonly ms: number;
  /** Why it failed, if it did. */
  readonly code: ErrorCode | undefined;
  /** Bytes of a resource that were sent to the client or taken from it. */
  readonly bytes: number | undefined;
  /** Where the big part of a load came from: undefined for all that is no load. */
  readonly source: 'cache' | 'cdn' | undefined;
}

export type UpstreamName = 'api' | 'cdn';

/** What the metrics show as it is at the moment. */
export interface Readings {
  readonly isReady: boolean;
  readonly isLoggedIn: boolean;
  readonly unlockState: string;
  /** Every state that the unlock can have. */
  readonly unlockStates: readonly string[];
  readonly tasksRunning: ReadonlyMap<string, number>;
  /** Undefined before the first call. */
  readonly engineIsReachable: boolean | undefined;
  /** `freeBytes` is undefined where the cache can't be used. */
  readonly cache: { readonly bytes: number; readonly copies: number; readonly freeBytes: number | undefined };
  /** `waiting` counts callers. */
  readonly workMemory: { readonly budget: number; readonly held: number; readonly waiting: number };
  /** The time of the servers upstream minus that of the device; null before their first answer. */
  readonly clockOffsetMs: number | null;
  /** Lines that were lost since the start, by output. */
  readonly lostLines: ReadonlyMap<string, number>;
}

export interface MetricsOptions {
  readonly version: string;
}

/** So many notes wait for prom-client at the most. */
const MAX_EARLY_NOTES = 10_000;
/** How long after the start prom-client is read, in ms: reading it takes as long as a tenth of a start. */
const OPEN_MS = 2_000;

/** Counts what happens, for GET /metrics. What happens before prom-client is read is noted, and counted then. */
export class Metrics {
  readonly #options: MetricsOptions;
  #instruments: Instruments | undefined;
  #opening: Promise<Instruments> | undefined;
  #early: ((instruments: Instruments) => void)[] = [];

  constructor(options: MetricsOptions) {
    this.#options = options;
  }

  /** For the end of the start: reads prom-client soon. */
  openSoon(): void {
    setTimeout(() => void this.#open().catch(() => undefined), OPEN_MS).unref();
  }

  noteRequest({ method, route, status, ms, code, bytes = 0, source }: EndedRequest): void {
    this.#note((instruments) => {
      instruments.requests.observe({ method, route, status: status ?? 'none' }, ms / 1000);
      if (code !== undefined) instruments.failures.inc({ route, code });
      if (source !== undefined) instruments.sentBytes.inc({ source }, bytes);
      else instruments.receivedBytes.inc(bytes);
    });
  }

  noteCall(upstream: UpstreamName, call: MeasuredCall): void {
    this.#note(({ calls, callFaults }) => {
      const { kind, method } = call;
      if (kind === 'answer') calls.observe({ upstream, method, status: call.status }, call.seconds);
      else callFaults.inc({ upstream, fault: call.fault });
    });
  }

  noteLogin(outcome: 'ok' | ErrorCode): void {
    this.#note(({ logins }) => logins.inc({ outcome }));
  }

  noteUnlock(outcome: 'ready' | ErrorCode): void {
    this.#note(({ unlocks }) => unlocks.inc({ outcome }));
  }

  noteTask(provider: string, status: string): void {
    this.#note(({ tasks }) => tasks.inc({ provider, status }));
  }

  /** The text that Prometheus reads, and its media type. */
  async render(readings: Readings): Promise<{ readonly text: string; readonly mediaType: string }> {
    const instruments = await this.#open();
    show(instruments, readings);
    const { registry } = instruments;
    return { text: await registry.metrics(), mediaType: registry.contentType };
  }

  #note(note: (instruments: Instruments) => void): void {
    if (this.#instruments !== undefined) note(this.#instruments);
    else if (this.#early.length < MAX_EARLY_NOTES) this.#early.push(note);
  }

  async #open(): Promise<Instruments> {
    this.#opening ??= import('./instruments.ts').then((module) => this.#take(new module.Instruments()));
    return await this.#opening;
  }

  #take(instruments: Instruments): Instruments {
    instruments.info.set({ version: this.#options.version }, 1);
    for (const note of this.#early) note(instruments);
    this.#early = [];
    this.#instruments = instruments;
    return instruments;
  }
}

function show(instruments: Instruments, readings: Readings): void {
  const { cache, workMemory, clockOffsetMs, engineIsReachable } = readings;
  instruments.isReady.set(Number(readings.isReady));
  instruments.isLoggedIn.set(Number(readings.isLoggedIn));
  for (const state of readings.unlockStates)
    instruments.unlockState.set({ state }, Number(state === readings.unlockState));
  for (const [provider, count] of readings.tasksRunning) instruments.tasksRunning.set({ provider }, count);
  instruments.engineIsReachable.set(engineIsReachable === undefined ? NaN : Number(engineIsReachable));
  instruments.cacheBytes.set(cache.bytes);
  instruments.cacheCopies.set(cache.copies);
  instruments.cacheFreeBytes.set(cache.freeBytes ?? 0);
  instruments.memoryBudget.set(workMemory.budget);
  instruments.memoryHeld.set(workMemory.held);
  instruments.memoryWaiting.set(workMemory.waiting);
  instruments.clockOffset.set(clockOffsetMs === null ? NaN : clockOffsetMs / 1000);
  instruments.logLinesLost.reset();
  for (const [output, count] of readings.lostLines) instruments.logLinesLost.inc({ output }, count);
}
