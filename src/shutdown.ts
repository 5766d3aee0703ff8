import type { Logger } from './logger.ts';

export interface ShutdownPhase {
  readonly name: string;
  /** Called in order of registration. The signal aborts when the time for the whole shutdown is over. */
  readonly run: (deadline: AbortSignal) => Promise<void>;
}

export interface ShutdownOptions {
  readonly logger: Logger;
  /** For all phases together, in ms. */
  readonly timeoutMs: number;
  readonly exit: (exitCode: number) => void;
}

/**
 * Stops the process in phases, in a box of time.
 *
 * The first call of `stop` runs the phases; a second call (a second signal) exits at once with 1. When the time is
 * over, phases that wait are told by their signal, and the process exits with 1 if they do not end then.
 */
export class Shutdown {
  readonly #options: ShutdownOptions;
  readonly #phases: readonly ShutdownPhase[];
  #stopping = false;

  constructor(phases: readonly ShutdownPhase[], options: ShutdownOptions) {
    this.#phases = phases;
    this.#options = options;
  }

  async stop(reason: string): Promise<void> {
    const { logger, timeoutMs, exit } = this.#options;
    if (this.#stopping) {
      logger.warn({ reason }, 'Stopping at once: asked a second time');
      exit(1);
      return;
    }
    this.#stopping = true;
    logger.info({ reason, timeoutMs }, 'Stopping: what is under way may finish');
    const deadline = AbortSignal.timeout(timeoutMs);
    // What hears the deadline gets a moment to clean up; what does not must not keep the process alive.
    const force = setTimeout(() => {
      logger.error('Stopping at once: the time to stop is over');
      exit(1);
    }, timeoutMs + FORCE_AFTER_DEADLINE_MS);
    let exitCode = 0;
    for (const phase of this.#phases) {
      try {
        await phase.run(deadline);
      } catch (error) {
        exitCode = 1;
        logger.error({ err: error, phase: phase.name }, 'A phase of the shutdown failed');
      }
    }
    clearTimeout(force);
    logger.info('Stopped');
    exit(exitCode);
  }
}

const FORCE_AFTER_DEADLINE_MS = 1_000;
