import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { ResourceApi } from '../../src/upstream/api-session.ts';
import { TestLinks } from './test-links.ts';

export interface SeenCall {
  readonly path: string;
  readonly token: string | undefined;
  readonly body: string;
}

export interface ScriptedAnswer {
  readonly status?: number;
  readonly type?: string;
  readonly location?: string;
  readonly body?: string | Buffer;
  /** The connection is closed in the place of an answer. */
  readonly isCut?: boolean;
}

/** A server in the place of the Resource API, whose answers a test makes one by one. */
export class ScriptedApi implements AsyncDisposable {
  readonly calls: SeenCall[] = [];
  answer: (call: SeenCall) => Promise<ScriptedAnswer> | ScriptedAnswer = () => ({});
  readonly #server: Server;
  readonly links = new TestLinks();

  private constructor() {
    this.#server = createServer((request, response) => {
      void (async () => {
        const body = Buffer.concat(await Array.fromAsync(request as AsyncIterable<Buffer>)).toString('utf8');
        const token = request.headers.authorization?.replace('Bearer ', '');
        const call = { path: request.url ?? '', token, body };
        this.calls.push(call);
        const answer = await this.answer(call);
        if (answer.isCut === true) {
          request.socket.destroy();
          return;
        }
        if (answer.location !== undefined) response.setHeader('location', answer.location);
        response.writeHead(answer.status ?? 200, { 'content-type': answer.type ?? 'application/json' });
        response.end(answer.body);
      })();
    });
  }

  static async start(): Promise<ScriptedApi> {
    const api = new ScriptedApi();
    api.#server.listen(0, '127.0.0.1');
    await once(api.#server, 'listening');
    return api;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** How this server is called, unless another is named. `limitMs` is the patience. */
  link(timeoutMs = 5_000, limitMs = 1_000, baseUrl = this.url): ResourceApi {
    const { api: dispatcher, clock } = this.links;
    const patience = { limitMs, setting: 'STALL_TIMEOUT_MS' };
    return { baseUrl, dispatcher, timeoutMs, patience, clock };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.links[Symbol.asyncDispose]();
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}
