import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type Server } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { pipeline, type Duplex } from 'node:stream';

/** What a proxy says in place of the connection. */
export interface ProxyRefusal {
  readonly status: number;
  readonly body?: string;
}

/** An HTTP proxy on loopback: tunnels for TLS, and whole requests for plain HTTP. */
export class TestProxy implements AsyncDisposable {
  /** Each request, as `CONNECT host:port` or `GET http://...`. */
  readonly asked: string[] = [];
  readonly authorizations: (string | undefined)[] = [];
  /** Where a tunnel or a request really goes; every host is on loopback. */
  port = 0;
  refusal: ProxyRefusal | undefined;
  readonly #server: Server = createServer();
  readonly #sockets = new Set<Socket>();

  static async start(): Promise<TestProxy> {
    const proxy = new TestProxy();
    proxy.#server.on('connection', (socket) => proxy.#sockets.add(socket));
    proxy.#server.on('connect', (asking, client) => proxy.#tunnel(asking, client));
    proxy.#server.on('request', (asking, answer) => {
      proxy.#note(asking);
      if (proxy.refusal !== undefined) return void answer.writeHead(proxy.refusal.status).end(proxy.refusal.body);
      const { pathname, search } = new URL(asking.url ?? '');
      const { method, headers } = asking;
      const onward = request({ port: proxy.port, host: '127.0.0.1', method, path: pathname + search, headers });
      onward.on('response', (response) => {
        answer.writeHead(response.statusCode ?? 502, response.headers);
        response.pipe(answer);
      });
      onward.on('error', () => answer.writeHead(502).end());
      asking.pipe(onward);
    });
    await once(proxy.#server.listen(0, '127.0.0.1'), 'listening');
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get host(): string {
    return new URL(this.url).host;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #note(asking: IncomingMessage): void {
    this.asked.push(`${asking.method} ${asking.url}`);
    this.authorizations.push(asking.headers['proxy-authorization']);
  }

  #tunnel(asking: IncomingMessage, client: Duplex): void {
    this.#note(asking);
    client.on('error', () => undefined);
    if (this.refusal !== undefined) {
      const { status, body = '' } = this.refusal;
      client.end(
        `HTTP/1.1 ${status} Whatever\r\nContent-Type: text/html\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      );
      return;
    }
    const target = connect(this.port, '127.0.0.1');
    this.#sockets.add(target);
    client.write('HTTP/1.1 200 Connection established\r\n\r\n');
    pipeline(client, target, client, () => undefined);
  }
}
