import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Agent } from 'undici';
import { ResourceApi } from '../../src/upstream/resource-api.ts';

export interface SeenCall {
  readonly path: string;
  readonly token: string | undefined;
  readonly body: string;
}

export interface ScriptedAnswer {
  readonly status?: number;
  readonly type?: string;
  readonly body?: string | Buffer;
}

/** A server in the place of the Resource API, whose answers a test makes one by one. */
export class ScriptedApi implements AsyncDisposable {
  readonly calls: SeenCall[] = [];
  answer: (call: SeenCall) => Promise<ScriptedAnswer> | ScriptedAnswer = () => ({});
  readonly #server: Server;
  readonly #dispatcher = new Agent();

  private constructor() {
    this.#server = createServer((request, response) => {
      void (async () => {
        const body = Buffer.concat(await Array.fromAsync(request as AsyncIterable<Buffer>)).toString('utf8');
        const token = request.headers.authorization?.replace('Bearer ', '');
        const call = { path: request.url ?? '', token, body };
        this.calls.push(call);
        const answer = await this.answer(call);
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

  /** A client of this server. */
  client(timeoutMs = 5_000): ResourceApi {
    return new ResourceApi({ baseUrl: this.url, dispatcher: this.#dispatcher, timeoutMs });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispatcher.destroy();
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}
