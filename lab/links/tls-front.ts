import { once } from 'node:events';
import { Agent, request, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import { createServer as createHttp2Server, type Http2Server, type ServerHttp2Stream } from 'node:http2';
import { connect, type AddressInfo } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';

export interface TlsFrontOptions {
  /** The URL of the HTTP server behind it. */
  readonly target: string;
  /** In PEM: a certificate with those that lead to its root, and its key. */
  readonly certificate: string;
  readonly key: string;
  /** Whether a client may choose HTTP/2. */
  readonly offersHttp2?: boolean;
  readonly onHandshake?: (handshake: { readonly isResumed: boolean; readonly isHttp2: boolean }) => void;
}

/** TLS in front of an HTTP server, on a free loopback port. HTTP/1.1 passes as it is; HTTP/2 becomes HTTP/1.1. */
export class TlsFront implements AsyncDisposable {
  /** The errors of the handshakes that failed. */
  readonly faults: Error[] = [];
  readonly #server: Server;
  readonly #http2: Http2Server;
  readonly #target: URL;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #sockets = new Set<TLSSocket>();

  private constructor({ target, certificate, key, offersHttp2 = false, onHandshake }: TlsFrontOptions) {
    this.#target = new URL(target);
    this.#http2 = createHttp2Server();
    this.#http2.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) =>
      this.#forward(stream, headers),
    );
    const ALPNProtocols = [...(offersHttp2 ? ['h2'] : []), 'http/1.1'];
    this.#server = createServer({ cert: certificate, key, ALPNProtocols, noDelay: true }, (socket) => {
      const isHttp2 = socket.alpnProtocol === 'h2';
      onHandshake?.({ isResumed: socket.isSessionReused(), isHttp2 });
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
      if (isHttp2) this.#http2.emit('connection', socket);
      else this.#tunnel(socket);
    });
    this.#server.on('tlsClientError', (error) => this.faults.push(error));
  }

  static async start(options: TlsFrontOptions): Promise<TlsFront> {
    const front = new TlsFront(options);
    front.#server.listen(0, '127.0.0.1');
    await once(front.#server, 'listening');
    return front;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `https://127.0.0.1:${this.port}`;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#agent.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #tunnel(client: TLSSocket): void {
    const target = connect({ host: this.#target.hostname, port: Number(this.#target.port), noDelay: true });
    client.pipe(target);
    target.pipe(client);
    client.on('error', () => target.destroy());
    target.on('error', () => client.destroy());
    client.once('close', () => target.destroy());
    target.once('close', () => client.destroySoon());
  }

  #forward(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    const upstream = request({
      host: this.#target.hostname,
      port: this.#target.port,
      agent: this.#agent,
      method: String(headers[':method']),
      path: String(headers[':path']),
      headers: { ...withoutPseudoHeaders(headers), host: String(headers[':authority'] ?? headers.host) },
    });
    stream.on('error', () => upstream.destroy());
    stream.once('close', () => upstream.destroy());
    upstream.on('error', () => stream.close());
    upstream.on('response', (answer) => {
      if (stream.destroyed) return;
      stream.respond({ ':status': answer.statusCode, ...answerHeaders(answer) });
      answer.pipe(stream);
    });
    stream.pipe(upstream);
  }
}

/** HTTP/2 has no such headers: RFC 9113, section 8.2.2. */
const OF_CONNECTIONS = ['connection', 'keep-alive', 'transfer-encoding'];

function withoutPseudoHeaders(headers: IncomingHttpHeaders): Record<string, string | string[] | undefined> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !name.startsWith(':')));
}

function answerHeaders({ headers }: IncomingMessage): Record<string, string | string[] | undefined> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !OF_CONNECTIONS.includes(name)));
}
