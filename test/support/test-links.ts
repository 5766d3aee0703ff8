import type { Dispatcher } from 'undici';
import { Dispatchers, type DispatchersOptions } from '../../src/net/dispatchers.ts';
import { ServerClock } from '../../src/net/server-clock.ts';

/** The connections that services.ts makes, for the parts that use them. */
export class TestLinks implements AsyncDisposable {
  readonly api: Dispatcher;
  readonly downloads: Dispatcher;
  readonly uploads: Dispatcher;
  /** Each offset that signatures have taken, in ms. */
  readonly corrections: number[] = [];
  readonly clock = new ServerClock({ onCorrection: (offsetMs) => this.corrections.push(offsetMs) });
  readonly #dispatchers: Dispatchers;

  constructor(options: DispatchersOptions = {}) {
    this.#dispatchers = new Dispatchers(options);
    const create = () => this.#dispatchers.create({ connectTimeoutMs: 5000, connections: 32 });
    this.api = create();
    this.downloads = create();
    this.uploads = create();
  }

  /** The options of an S3CdnManager. */
  cdn(limitMs: number) {
    return { patience: { limitMs, setting: 'STALL_TIMEOUT_MS' }, links: this, clock: this.clock };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispatchers.destroy();
  }
}
