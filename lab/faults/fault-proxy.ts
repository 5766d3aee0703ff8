import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** What becomes of one request. Bytes count from the beginning of the answer's body. */
export type Fault =
  | { readonly kind: 'pass' }
  /** Answered without asking the upstream. */
  | {
      readonly kind: 'answer';
      readonly status: number;
      readonly headers?: Record<string, string>;
      readonly body?: string;
    }
  /** The upstream's answer with another status or other headers; a header that is undefined is removed. */
  | { readonly kind: 'rewrite'; readonly status?: number; readonly headers?: Record<string, string | undefined> }
  /** The connection breaks after so many bytes of the body. */
  | { readonly kind: 'cut'; readonly afterBytes: number }
  /** After so many bytes of the body, no more come; the connection stays. */
  | { readonly kind: 'silence'; readonly afterBytes: number }
  /** The request is taken and never answered. */
  | { readonly kind: 'never-answer' }
  /** The connection is closed without an answer. */
  | { readonly kind: 'refuse' }
  /** The upstream does what was asked, and its answer gets lost. */
  | { readonly kind: 'lose-answer' }
  | { readonly kind: 'delay'; readonly ms: number }
  /** Forwarded when the promise resolves, or answered then without asking the upstream. */
  | { readonly kind: 'hold'; readonly until: Promise<unknown>; readonly answer?: { status: number; body: string } }
  /** The answer's body comes no faster than this. */
  | { readonly kind: 'throttle'; readonly bytesPerSecond: number };

export interface SeenRequest {
  readonly method: string;
  /** Path with query. */
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
}

const PASS: Fault = { kind: 'pass' };

/** A reverse proxy on a free loopback port that hurts the requests which `fault` chooses. */
export class FaultProxy {
  /** Called for each request, in order of arrival. */
  fault: (request: SeenRequest) => Fault = () => PASS;
  readonly requests: SeenRequest[] = [];
  readonly #server: Server;
  readonly #upstream: URL;
  #openConnections = 0;
  #openRequests = 0;

  private constructor(upstream: string) {
    this.#upstream = new URL(upstream);
    this.#server = createServer((incoming, outgoing) => {
      this.#openRequests++;
      outgoing.once('close', () => this.#openRequests--);
      this.#handle(incoming, outgoing);
    });
    this.#server.on('connection', (socket) => {
      this.#openConnections++;
      socket.once('close', () => this.#openConnections--);
    });
  }

  static async start(upstream: string): Promise<FaultProxy> {
    const proxy = new FaultProxy(upstream);
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Connections of clients, idle ones included. */
  get openConnections(): number {
    return this.#openConnections;
  }

  /** Requests whose answer is not complete and whose client has not left. */
  get openRequests(): number {
    return this.#openRequests;
  }

  /** No more faults, and no memory of requests. */
  reset(): void {
    this.fault = () => PASS;
    this.requests.length = 0;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #handle(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const seen = { method: incoming.method ?? '', url: incoming.url ?? '', headers: incoming.headers };
    this.requests.push(seen);
    const fault = this.fault(seen);
    incoming.on('error', () => outgoing.destroy());
    if (fault.kind === 'answer') {
      // As servers do: an answer in the middle of a body would reset the connection.
      incoming.resume().on('end', () => {
        outgoing.writeHead(fault.status, fault.headers ?? {}).end(fault.body ?? '');
      });
    } else if (fault.kind === 'never-answer') {
      incoming.resume();
    } else if (fault.kind === 'refuse') {
      incoming.socket.destroy();
    } else if (fault.kind === 'delay') {
      setTimeout(() => this.#forward(incoming, outgoing, PASS), fault.ms);
    } else if (fault.kind === 'hold') {
      void fault.until.then(() => {
        if (fault.answer === undefined) this.#forward(incoming, outgoing, PASS);
        else outgoing.writeHead(fault.answer.status).end(fault.answer.body);
      });
    } else {
      this.#forward(incoming, outgoing, fault);
    }
  }

  #forward(incoming: IncomingMessage, outgoing: ServerResponse, fault: Fault): void {
    if (outgoing.destroyed) return; // The client has left meanwhile.
    // Headers as they came, Host included: it is signed.
    const upstream = request({
      host: this.#upstream.hostname,
      port: this.#upstream.port,
      method: incoming.method,
      path: incoming.url,
      headers: incoming.headers,
    });
    upstream.on('error', () => outgoing.destroy());
    outgoing.on('close', () => upstream.destroy());
    upstream.on('response', (answer) => {
      answer.on('error', () => outgoing.destroy());
      if (fault.kind === 'lose-answer') {
        answer.resume();
        answer.on('end', () => outgoing.destroy());
        return;
      }
      const headers: Record<string, string | string[]> = {};
      const changes = fault.kind === 'rewrite' ? (fault.headers ?? {}) : {};
      for (const [name, value] of Object.entries({ ...answer.headers, ...changes })) {
        if (value !== undefined) headers[name] = value;
      }
      outgoing.writeHead(
        fault.kind === 'rewrite' ? (fault.status ?? answer.statusCode ?? 0) : (answer.statusCode ?? 0),
        headers,
      );
      if (fault.kind === 'cut' || fault.kind === 'silence') sendSome(answer, outgoing, fault);
      else if (fault.kind === 'throttle') void sendSlowly(answer, outgoing, fault.bytesPerSecond);
      else answer.pipe(outgoing);
    });
    incoming.pipe(upstream);
  }
}

async function sendSlowly(answer: IncomingMessage, outgoing: ServerResponse, bytesPerSecond: number): Promise<void> {
  outgoing.flushHeaders();
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      outgoing.write(chunk);
      await sleep((1000 * chunk.length) / bytesPerSecond, undefined, { ref: false });
    }
    outgoing.end();
  } catch {
    outgoing.destroy();
  }
}

function sendSome(
  answer: IncomingMessage,
  outgoing: ServerResponse,
  fault: { kind: 'cut' | 'silence'; afterBytes: number },
): void {
  let left = fault.afterBytes;
  outgoing.flushHeaders();
  answer.on('data', (chunk: Buffer) => {
    if (left > 0) outgoing.write(chunk.subarray(0, left));
    left -= chunk.length;
    if (left > 0) return;
    answer.destroy();
    // A moment, so that the bytes before the cut arrive.
    if (fault.kind === 'cut') setTimeout(() => outgoing.destroy(), 20);
  });
}
