import { setTimeout as sleep } from 'node:timers/promises';
import { happens } from '../async/abort.ts';
import type { DockerEngine } from '../docker/docker-engine.ts';
import type { Logger } from '../log/logger.ts';
import type { UnlockService } from './unlock-service.ts';

export interface ReleaseWatchOptions {
  readonly engine: Pick<DockerEngine, 'imageEvents'>;
  readonly unlocks: Pick<UnlockService, 'isReady' | 'nextChange' | 'recheck'>;
  readonly logger: Logger;
}

/** A prune removes many images at once, so the release is checked once for all of them, after this many ms. */
const GATHER_MS = 200;
/** Bounds of the pause before an engine that broke the connection is asked again, in ms. */
const MIN_PAUSE_MS = 1_000;
const MAX_PAUSE_MS = 60_000;

/** Listens to the engine from the first `ready` on, and checks the release whenever something happens to an image. */
export class ReleaseWatch {
  readonly #options: ReleaseWatchOptions;

  constructor(options: ReleaseWatchOptions) {
    this.#options = options;
  }

  /** Works until `signal` aborts. It never fails. */
  async run(signal: AbortSignal): Promise<void> {
    const { unlocks } = this.#options;
    let pauseMs = MIN_PAUSE_MS;
    while (!signal.aborted) {
      const changed = unlocks.nextChange;
      if (!unlocks.isReady) {
        await happens(changed, signal);
        continue;
      }
      pauseMs = (await this.#follow(signal)) ? MIN_PAUSE_MS : Math.min(MAX_PAUSE_MS, pauseMs * 2);
      // Its only failure is the abort of the signal.
      await sleep(pauseMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Follows the engine's events to their end. Returns false when the engine sent none. */
  async #follow(signal: AbortSignal): Promise<boolean> {
    const { engine, unlocks, logger } = this.#options;
    let hasListened = false;
    try {
      for await (const event of engine.imageEvents(signal)) {
        hasListened = true;
        if (event === 'changed') await sleep(GATHER_MS, undefined, { signal });
        await unlocks.recheck(signal);
      }
    } catch (error) {
      logger.debug({ err: error }, "The Docker engine's events can't be followed now");
    }
    return hasListened;
  }
}
