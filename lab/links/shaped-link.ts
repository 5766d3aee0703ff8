import { Worker } from 'node:worker_threads';
import { LinkCounts } from './link-counts.ts';
import type { LinkShape } from './link-shape.ts';
import type { TlsFrontOptions } from './tls-front.ts';

export interface LinkOptions extends LinkShape {
  /** For the losses: the same seed loses at the same places of the same traffic. */
  readonly seed?: number;
}

/** TLS that ends behind the link. */
export type LinkTls = Omit<TlsFrontOptions, 'target' | 'onHandshake'>;

export interface LinkWorkerData {
  readonly shape: LinkShape;
  readonly seed: number;
  readonly counts: SharedArrayBuffer;
}

export type LinkCommand =
  | { readonly kind: 'open'; readonly target: string; readonly tls: LinkTls | undefined }
  | { readonly kind: 'change'; readonly shape: LinkShape };

export interface LinkReply {
  readonly number: number;
  /** The one on which a new way listens. */
  readonly port?: number;
}

/**
 * A link of given delay, rate and loss on loopback, with TLS behind it where it is wanted. All ways over it share its
 * rate. Each connection costs one round trip before its first byte, and its window grows as that of Linux does
 * (congestion-window.ts).
 *
 * It is in a thread of its own, since what its user does must not delay it. It is here since `tc netem` needs root and a
 * kernel that has it.
 */
export class ShapedLink implements AsyncDisposable {
  readonly counts: LinkCounts;
  readonly #worker: Worker;
  readonly #waiting = new Map<number, (reply: LinkReply) => void>();
  #shape: LinkShape;
  #commands = 0;

  private constructor(worker: Worker, shape: LinkShape, counts: LinkCounts) {
    this.#worker = worker;
    this.#shape = shape;
    this.counts = counts;
    worker.on('message', (reply: LinkReply) => {
      this.#waiting.get(reply.number)?.(reply);
      this.#waiting.delete(reply.number);
    });
  }

  static start({ seed = 1, ...shape }: LinkOptions): ShapedLink {
    const counts = new LinkCounts();
    const workerData: LinkWorkerData = { shape, seed, counts: counts.memory };
    const worker = new Worker(new URL('shaped-link-worker.ts', import.meta.url), { workerData });
    return new ShapedLink(worker, shape, counts);
  }

  get shape(): LinkShape {
    return this.#shape;
  }

  /**
   * Opens a way over the link to an HTTP server, and returns the URL of its near end. With `tls`, the server is one of
   * HTTPS for its clients.
   */
  async open(target: string, tls?: LinkTls): Promise<string> {
    const { port } = await this.#command({ kind: 'open', target, tls });
    return `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port ?? 0}`;
  }

  /** Changes what is named, for all that is sent from now on. */
  async change(shape: Partial<LinkShape>): Promise<void> {
    this.#shape = { ...this.#shape, ...shape };
    await this.#command({ kind: 'change', shape: this.#shape });
  }

  async stop(): Promise<void> {
    await this.#worker.terminate();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #command(command: LinkCommand): Promise<LinkReply> {
    const number = this.#commands++;
    const { promise, resolve } = Promise.withResolvers<LinkReply>();
    this.#waiting.set(number, resolve);
    this.#worker.postMessage({ number, command });
    return await promise;
  }
}
