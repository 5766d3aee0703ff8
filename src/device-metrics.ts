import type { ApiClient } from './api-client/api-client.ts';
import type { DeviceStatus } from './device-status.ts';
import type { Metrics, Readings } from './metrics/metrics.ts';
import type { Tasks } from './tasks/tasks.ts';
import { UNLOCK_STATES } from './unlock/unlock-state-machine.ts';

export interface DeviceMetricsOptions {
  readonly metrics: Pick<Metrics, 'render'>;
  readonly deviceStatus: Pick<DeviceStatus, 'report'>;
  readonly apiClient: Pick<ApiClient, 'status' | 'unlockStatus' | 'workMemory'>;
  readonly tasks: Pick<Tasks, 'runningCounts'>;
  /** Lines that each output of the log could not take since the start. */
  readonly lostLines: () => ReadonlyMap<string, number>;
}

/** The metrics of the whole device: what was counted since the start, and how it is now. It asks nothing over the network. */
export class DeviceMetrics {
  readonly #options: DeviceMetricsOptions;

  constructor(options: DeviceMetricsOptions) {
    this.#options = options;
  }

  /** As `Metrics.render`. */
  async render(): Promise<{ readonly text: string; readonly mediaType: string }> {
    return await this.#options.metrics.render(await this.#read());
  }

  async #read(): Promise<Readings> {
    const { deviceStatus, apiClient, tasks, lostLines } = this.#options;
    const { cache, engine, problems } = await deviceStatus.report();
    const { isAuthenticated, clockOffsetMs } = apiClient.status;
    const { lastAnswer } = engine;
    const { budget, held, waiting } = apiClient.workMemory;
    return {
      isReady: problems.length === 0,
      isLoggedIn: isAuthenticated,
      unlockState: apiClient.unlockStatus.state,
      unlockStates: UNLOCK_STATES,
      tasksRunning: tasks.runningCounts,
      engineIsReachable: lastAnswer && lastAnswer.failure === undefined,
      cache,
      workMemory: { budget, held, waiting },
      clockOffsetMs,
      lostLines: lostLines(),
    };
  }
}
