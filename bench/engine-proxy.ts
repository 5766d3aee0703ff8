import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import path from 'node:path';

/** Stands between a Loader and the Docker engine, on a Unix socket, and notes what is asked. */
export class EngineProxy {
  /** For DOCKER_HOST. */
  readonly host: string;
  /** Method and path of each request until now. */
  readonly calls: string[] = [];
  readonly #server: Server;

  private constructor(server: Server, host: string) {
    this.#server = server;
    this.host = host;
  }

  /** `engineHost` as in DOCKER_HOST, with a Unix socket. */
  static async start(folder: string, engineHost: string): Promise<EngineProxy> {
    const socketPath = path.join(folder, 'proxy.sock');
    const server = createServer({ requestTimeout: 0 });
    const proxy = new EngineProxy(server, `unix://${socketPath}`);
    const enginePath = engineHost.slice('unix://'.length);
    server.on('request', (incoming, answer) => {
      proxy.calls.push(`${incoming.method ?? ''} ${incoming.url ?? ''}`);
      forward(incoming, answer, enginePath);
    });
    server.listen(socketPath);
    await once(server, 'listening');
    return proxy;
  }

  /** How often the engine was sent images. */
  get loads(): number {
    return this.calls.filter((call) => /^POST \S*\/images\/load(\?|$)/.test(call)).length;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

function forward(incoming: IncomingMessage, answer: ServerResponse, socketPath: string): void {
  const { method, url: target, headers } = incoming;
  const outgoing = request({ socketPath, method, path: target, headers }, (reply) => {
    answer.writeHead(reply.statusCode ?? 502, reply.headers);
    reply.pipe(answer);
    reply.on('error', () => answer.destroy());
  });
  outgoing.on('error', () => answer.destroy());
  incoming.on('error', () => outgoing.destroy());
  incoming.pipe(outgoing);
}
