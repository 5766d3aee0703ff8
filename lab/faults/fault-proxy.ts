import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
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
  /** The upstream's answer with another status, body or headers; a header that is undefined is removed. */
  | { readonly kind: 'rewrite'; readonly status?: number; readonly headers?: HeaderChanges; readonly body?: string }
  /** The connection breaks after so many bytes of the body: closed as if all were sent, or with a reset. */
  | { readonly kind: 'cut' | 'reset'; readonly afterBytes: number }
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

/** Undefined for a header that is removed. */
export type HeaderChanges = Readonly<Record<string, string | undefined>>;

/** What a server or a proxy always does. */
export interface Manner {
  /** Whether it answers `Expect: 100-continue`; true unless given. */
  readonly saysContinue?: boolean;
  /** It closes a connection after so many answers, without saying so before. */
  readonly answersPerConnection?: number;
  /**
   * How far its clock is ahead, in ms. It refuses requests whose signature is more than a quarter of an hour away from
   * it, as S3 does. The upstream must check no signature: it would refuse those that this one takes.
   */
  readonly clockAheadMs?: number;
  /** What it changes of each request's headers before the upstream gets them. */
  readonly requestHeaders?: HeaderChanges;
  /** What it changes of each answer's headers. */
  readonly answerHeaders?: (headers: IncomingMessage['headers'], request: SeenRequest) => HeaderChanges;
}

export interface SeenRequest {
  readonly method: string;
  /** Path with query. */
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
}

const PASS: Fault = { kind: 'pass' };
/** What S3 allows between its clock and that of a signature, in ms. */
const MAX_SKEW_MS = 15 * 60_000;

/** A reverse proxy on a free loopback port that hurts the requests which `fault` chooses. */
export class FaultProxy {
  /** Called for each request, in order of arrival. */
  fault: (request: SeenRequest) => Fault = () => PASS;
  manner: Manner = {};
  readonly requests: SeenRequest[] = [];
  readonly #server: Server;
  readonly #upstream: URL;
  #openConnections = 0;
  #openRequests = 0;
  readonly #answers = new WeakMap<Socket, number>();

  private constructor(upstream: string) {
    this.#upstream = new URL(upstream);
    this.#server = createServer((incoming, outgoing) => this.#take(incoming, outgoing));
    this.#server.on('checkContinue', (incoming: IncomingMessage, outgoing: ServerResponse) => {
      if (this.manner.saysContinue !== false) outgoing.writeContinue();
      this.#take(incoming, outgoing);
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

  /** No more faults, good manners, and no memory of requests. */
  reset(): void {
    this.fault = () => PASS;
    this.manner = {};
    this.requests.length = 0;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #take(incoming: IncomingMessage, outgoing: ServerResponse): void {
    this.#openRequests++;
    outgoing.once('close', () => this.#openRequests--);
    const { socket } = incoming;
    outgoing.once('finish', () => {
      const answers = (this.#answers.get(socket) ?? 0) + 1;
      this.#answers.set(socket, answers);
      if (answers >= (this.manner.answersPerConnection ?? Infinity)) socket.end();
    });
    this.#handle(incoming, outgoing);
  }

  #handle(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const seen = { method: incoming.method ?? '', url: incoming.url ?? '', headers: incoming.headers };
    this.requests.push(seen);
    const fault = this.#isSkewed(seen) ? SKEWED : this.fault(seen);
    if (this.manner.clockAheadMs !== undefined) outgoing.setHeader('date', this.#date());
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

  /** As in the header of that name. */
  #date(): string {
    return new Date(Date.now() + (this.manner.clockAheadMs ?? 0)).toUTCString();
  }

  #isSkewed({ headers }: SeenRequest): boolean {
    const { clockAheadMs } = this.manner;
    const [, ...digits] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(String(headers['x-amz-date'])) ?? [];
    if (clockAheadMs === undefined || digits.length === 0) return false;
    const [year = 0, month = 0, ...rest] = digits.map(Number);
    return Math.abs(Date.UTC(year, month - 1, ...rest) - Date.now() - clockAheadMs) > MAX_SKEW_MS;
  }

  #forward(incoming: IncomingMessage, outgoing: ServerResponse, fault: Fault): void {
    if (outgoing.destroyed) return; // The client has left meanwhile.
    // Headers as they came, Host included: it is signed.
    const upstream = request({
      host: this.#upstream.hostname,
      port: this.#upstream.port,
      method: incoming.method,
      path: incoming.url,
      headers: withChanges(incoming.headers, this.manner.requestHeaders),
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
      const { method = '', url = '' } = incoming;
      const ofManner = this.manner.answerHeaders?.(answer.headers, { method, url, headers: incoming.headers });
      const ofClock = this.manner.clockAheadMs === undefined ? {} : { date: this.#date() };
      const ofFault = fault.kind === 'rewrite' ? fault.headers : undefined;
      const status = fault.kind === 'rewrite' ? fault.status : undefined;
      const body = fault.kind === 'rewrite' ? fault.body : undefined;
      const ofBody =
        body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)), 'transfer-encoding': undefined };
      const headers = withChanges(answer.headers, { ...ofManner, ...ofClock, ...ofFault, ...ofBody });
      outgoing.writeHead(status ?? answer.statusCode ?? 0, headers);
      if (body !== undefined) {
        answer.resume();
        outgoing.end(body);
        return;
      }
      if (fault.kind === 'cut' || fault.kind === 'reset' || fault.kind === 'silence') sendSome(answer, outgoing, fault);
      else if (fault.kind === 'throttle') void sendSlowly(answer, outgoing, fault.bytesPerSecond);
      else answer.pipe(outgoing);
    });
    incoming.pipe(upstream);
  }
}

const SKEWED: Fault = {
  kind: 'answer',
  status: 403,
  headers: { 'content-type': 'application/xml' },
  body: '<Error><Code>RequestTimeTooSkewed</Code><Message>The clocks differ too much.</Message></Error>',
};

function withChanges(
  headers: IncomingMessage['headers'],
  changes: HeaderChanges = {},
): Record<string, string | string[]> {
  const changed: Record<string, string | string[]> = {};
  for (const [name, value] of Object.entries({ ...headers, ...changes })) {
    if (value !== undefined) changed[name] = value;
  }
  return changed;
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
  fault: { kind: 'cut' | 'reset' | 'silence'; afterBytes: number },
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
    else if (fault.kind === 'reset') setTimeout(() => outgoing.socket?.resetAndDestroy(), 20);
  });
}
