import { setTimeout as sleep } from 'node:timers/promises';
import { happens } from '../async/abort.ts';
import type { DockerEngine } from '../docker/docker-engine.ts';
import { asLoaderError } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import type { UnlockService } from './unlock-service.ts';

export interface ReleaseWatchOptions {
  readonly engine: Pick<DockerEngine, 'imageEvents'>;
  readonly unlocks: Pick<UnlockService, 'findLoaded' | 'isReady' | 'nextChange' | 'recheck'>;
  /** How long the first look waits, in ms, for an unlock that begins with the start: it looks for itself. */
  readonly firstLookMs?: number;
  readonly logger: Logger;
}

const FIRST_LOOK_MS = 300;
/** A prune removes many images at once, so the release is checked once for all of them, after this many ms. */
const GATHER_MS = 200;
/** Bounds of the pause before an engine that broke the connection is asked again, in ms. */
const MIN_PAUSE_MS = 1_000;
const MAX_PAUSE_MS = 60_000;

/**
 * Finds out at the start whether the release is loaded. Then it listens to the engine from the first `ready` on, and
 * checks the release whenever something happens to an image.
 */
export class ReleaseWatch {
  readonly #options: ReleaseWatchOptions;

  constructor(options: ReleaseWatchOptions) {
    this.#options = options;
  }

  /** Works until `signal` aborts. It never fails. */
  async run(signal: AbortSignal): Promise<void> {
    const { unlocks } = this.#options;
    await this.#findLoaded(signal);
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

  /** Asks an engine that fails again, since it may start after the Loader. */
  async #findLoaded(signal: AbortSignal): Promise<void> {
    const { unlocks, logger, firstLookMs = FIRST_LOOK_MS } = this.#options;
    await happens(unlocks.nextChange, AbortSignal.any([signal, AbortSignal.timeout(firstLookMs)]));
    let pauseMs = MIN_PAUSE_MS;
    let changed = unlocks.nextChange;
    while (!(await this.#tryToFindLoaded(signal, pauseMs === MIN_PAUSE_MS ? logger : undefined))) {
      // A run that begins meanwhile looks for itself.
      await happens(changed, AbortSignal.any([signal, AbortSignal.timeout(pauseMs)]));
      pauseMs = Math.min(MAX_PAUSE_MS, pauseMs * 2);
      changed = unlocks.nextChange;
    }
  }

  /** Returns whether it is found out, or nobody wants to know any more. A failure is told to the logger, if there is one. */
  async #tryToFindLoaded(signal: AbortSignal, logger: Logger | undefined): Promise<boolean> {
    try {
      await this.#options.unlocks.findLoaded(signal);
      return true;
    } catch (error) {
      if (signal.aborted) return true;
      const { code, message } = asLoaderError(error);
      logger?.warn({ code }, `Nothing tells yet whether the release is loaded: ${message}`);
      return false;
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
