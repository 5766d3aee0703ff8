import { asLoaderError } from './errors.ts';
import type { Logger } from './log/logger.ts';

export interface ShutdownPhase {
  readonly name: string;
  /** Called when the phase before it has ended. The signal aborts when the time of all phases is over. */
  readonly run: (deadline: AbortSignal) => Promise<void>;
}

export interface ShutdownOptions {
  readonly logger: Logger;
  /** For all phases together, in ms. */
  readonly timeoutMs: number;
  readonly exit: (exitCode: number) => void;
}

/** How long phases may go on after their deadline, to clean up, before the process is ended. */
const CLEAN_UP_MS = 1_000;

/**
 * Stops the process in phases and in bounded time: after a signal with exit code 0, after a fault with 1.
 *
 * At the deadline, the signal of the phases aborts. Phases that then still don't end must not keep the process alive: it
 * exits with 1.
 */
export class Shutdown {
  readonly #options: ShutdownOptions;
  readonly #phases: readonly ShutdownPhase[];
  #isStopping = false;
  #exitCode = 0;

  constructor(phases: readonly ShutdownPhase[], options: ShutdownOptions) {
    this.#phases = phases;
    this.#options = options;
  }

  /** Stops because of a signal. A second signal ends the process at once, with exit code 1. */
  async stop(signal: string): Promise<void> {
    const { logger, timeoutMs, exit } = this.#options;
    if (this.#isStopping) {
      logger.warn({ reason: signal }, 'Stopping at once: a signal came while the Loader was stopping');
      exit(1);
      return;
    }
    logger.info({ reason: signal, timeoutMs }, 'Stopping: work under way may finish');
    await this.#run(timeoutMs, timeoutMs + CLEAN_UP_MS);
  }

  /** Stops because of a fault that nothing caught, within `timeoutMs`. Further faults are only logged. */
  async stopAfterFault(fault: unknown, message: string): Promise<void> {
    const { logger, timeoutMs } = this.#options;
    this.#exitCode = 1;
    logger.fatal({ err: fault, code: asLoaderError(fault).code }, message);
    if (this.#isStopping) return;
    await this.#run(timeoutMs - Math.min(CLEAN_UP_MS, timeoutMs / 2), timeoutMs);
  }

  /** Runs the phases and exits: the deadline is after `deadlineMs`, the forced end after `forceMs`. */
  async #run(deadlineMs: number, forceMs: number): Promise<void> {
    const { logger, exit } = this.#options;
    this.#isStopping = true;
    const deadline = AbortSignal.timeout(Math.floor(deadlineMs));
    const force = setTimeout(() => {
      logger.error('Stopping at once: the time to stop is over');
      exit(1);
    }, forceMs);
    for (const phase of this.#phases) {
      try {
        await phase.run(deadline);
      } catch (error) {
        this.#exitCode = 1;
        logger.error({ err: error, phase: phase.name }, 'A phase of the shutdown failed');
      }
    }
    clearTimeout(force);
    logger.info('Stopped');
    exit(this.#exitCode);
  }
}
