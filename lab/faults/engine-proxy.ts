import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { rmSync } from 'node:fs';
import { text } from 'node:stream/consumers';

/** What becomes of one load into the engine. */
export type LoadFault =
  | { readonly kind: 'pass' }
  /** The proxy neither reads the body nor replies. */
  | { readonly kind: 'never-read' }
  /** The engine gets these bytes, and the others when `until` resolves. */
  | { readonly kind: 'hold'; readonly afterBytes: number; readonly until: Promise<unknown> }
  /** The connection breaks after so many bytes of the body. */
  | { readonly kind: 'cut'; readonly afterBytes: number }
  /** The proxy replies before it has read the body. */
  | { readonly kind: 'early'; readonly status: number; readonly body: string }
  /** The proxy reads the body, throws it away, and replies this. */
  | { readonly kind: 'reply'; readonly body: string; readonly end: 'clean' | 'cut' | 'never' };

/** How soon a held connection finds out that its client has left, in ms. */
const PROBE_MS = 50;

/** Stands before an engine, on a Unix socket of its own; counts its loads, and hurts those that `fault` chooses. */
export class EngineProxy {
  /** Called for each load, with its number in order of arrival, from 0. */
  fault: (index: number) => LoadFault = () => ({ kind: 'pass' });
  /** Fields that are changed in the engine's answer to GET /info. */
  info: Readonly<Record<string, unknown>> = {};
  /** Whether the engine seems to have no GET /events. */
  hidesEvents = false;
  /** Bytes of body that each load brought until now. */
  readonly loads: number[] = [];
  readonly #socketPath: string;
  #isReplying = Promise.withResolvers<undefined>();
  readonly #engineSocketPath: string;
  readonly #server: Server;

  private constructor(socketPath: string, engineHost: string) {
    this.#socketPath = socketPath;
    this.#engineSocketPath = engineHost.slice('unix://'.length);
    this.#server = createServer((incoming, outgoing) => this.#handle(incoming, outgoing));
  }

  static async start(socketPath: string, engineHost: string): Promise<EngineProxy> {
    const proxy = new EngineProxy(socketPath, engineHost);
    await new Promise<void>((resolve) => proxy.#server.listen(socketPath, resolve));
    return proxy;
  }

  /** As in DOCKER_HOST. */
  get host(): string {
    return `unix://${this.#socketPath}`;
  }

  /** No more faults, and no memory of loads. */
  reset(): void {
    this.fault = () => ({ kind: 'pass' });
    this.info = {};
    this.hidesEvents = false;
    this.loads.length = 0;
    this.#isReplying = Promise.withResolvers<undefined>();
  }

  /** Waits until a load was read to its end and a reply of a fault has begun. */
  async replying(): Promise<void> {
    await this.#isReplying.promise;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    rmSync(this.#socketPath, { force: true });
  }

  #handle(incoming: IncomingMessage, outgoing: ServerResponse): void {
    incoming.on('error', () => outgoing.destroy());
    if (this.hidesEvents && (incoming.url ?? '').includes('/events')) {
      outgoing.writeHead(404).end();
      return;
    }
    if (incoming.method !== 'POST' || !(incoming.url ?? '').includes('/images/load')) {
      this.#forward(incoming, outgoing, { kind: 'pass' });
      return;
    }
    const index = this.loads.push(0) - 1;
    const fault = this.fault(index);
    // A body that the engine does not read must stay with the client.
    const count = () =>
      incoming.on('data', (chunk: Buffer) => (this.loads[index] = (this.loads[index] ?? 0) + chunk.length));
    if (fault.kind === 'never-read') return;
    if (fault.kind === 'early') {
      outgoing.writeHead(fault.status, { 'content-type': 'application/json' }).end(fault.body);
    } else if (fault.kind === 'reply') {
      count();
      incoming.on('end', () => {
        outgoing.writeHead(200, { 'content-type': 'application/json' });
        outgoing.write(fault.body);
        this.#isReplying.resolve(undefined);
        if (fault.end === 'clean') outgoing.end();
        else if (fault.end === 'cut') setTimeout(() => outgoing.destroy(), 20);
      });
    } else {
      count();
      this.#forward(incoming, outgoing, fault);
    }
  }

  #forward(incoming: IncomingMessage, outgoing: ServerResponse, fault: LoadFault): void {
    const { method, url, headers } = incoming;
    const upstream = request({ socketPath: this.#engineSocketPath, method, path: url, headers });
    upstream.on('error', () => outgoing.destroy());
    outgoing.on('close', () => upstream.destroy());
    upstream.on('response', (answer) => {
      if ((url ?? '').endsWith('/info')) {
        void text(answer).then((json) => {
          outgoing.end(JSON.stringify({ ...(JSON.parse(json) as object), ...this.info }));
        });
        return;
      }
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      // The events of an engine may come much later than its headers.
      outgoing.flushHeaders();
      answer.on('error', () => outgoing.destroy());
      answer.pipe(outgoing);
    });
    let passed = 0;
    let hold: 'before' | 'during' | 'after' = 'before';
    incoming.on('data', (chunk: Buffer) => {
      passed += chunk.length;
      if (fault.kind === 'cut' && passed > fault.afterBytes) {
        upstream.destroy();
        incoming.destroy();
        return;
      }
      if (!upstream.write(chunk)) incoming.pause();
      if (fault.kind === 'hold' && passed > fault.afterBytes && hold === 'before') {
        hold = 'during';
        incoming.pause();
        // A connection that is not read from shows only by a write that its client has left, as the engine must learn.
        const probe = setInterval(() => outgoing.writeProcessing(), PROBE_MS);
        outgoing.on('close', () => clearInterval(probe));
        void fault.until.then(() => {
          hold = 'after';
          clearInterval(probe);
          incoming.resume();
        });
      }
    });
    upstream.on('drain', () => {
      if (hold !== 'during') incoming.resume();
    });
    incoming.on('end', () => upstream.end());
  }
}
