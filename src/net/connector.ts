import type { Socket } from 'node:net';
import { connect as connectTls, type SecureContext } from 'node:tls';
import type { buildConnector } from 'undici';
import { onAbort } from '../async/abort.ts';
import { ConnectTimeoutError, NetworkFault, toNetworkFault } from './network-fault.ts';
import { hostAndPort, type ProxyRules, type ProxyServer, type Target } from './proxy-rules.ts';
import { openTunnel } from './tunnel.ts';
import { raceConnect, type RaceConnectParts } from './race-connect.ts';

export interface ConnectorOptions {
  /** For names, TCP, proxy and TLS together, in ms. */
  readonly timeoutMs: number;
  readonly proxies: ProxyRules;
  /** The CAs that are trusted. */
  readonly secureContext: () => SecureContext;
  /** The TLS session of each host, by which the next handshake takes one round trip less. */
  readonly tlsSessions: Map<string, Buffer>;
  /** What a test replaces. */
  readonly parts?: RaceConnectParts | undefined;
}

/** How long a connection may be silent before the system looks whether the other side is there, in ms. */
const KEEP_ALIVE_DELAY_MS = 30_000;

/** Makes the connections of undici: to the host or to its proxy, with TLS or without. */
export class Connector {
  readonly #options: ConnectorOptions;

  constructor(options: ConnectorOptions) {
    this.#options = options;
  }

  /** For undici, which gets a NetworkFault for whatever fails. */
  readonly connect: buildConnector.connector = ({ protocol, hostname, port }, callback) => {
    this.#open({ protocol, hostname, port: port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port) }).then(
      (socket) => callback(null, socket),
      (error: unknown) => callback(error as NetworkFault, null),
    );
  };

  /** @throws NetworkFault */
  async #open(target: Target): Promise<Socket> {
    const { timeoutMs, proxies } = this.#options;
    const isProxy = proxies.isHttpProxy(target);
    const proxy = target.protocol === 'https:' && !isProxy ? proxies.proxyFor(target) : undefined;
    const late = new AbortController();
    const timer = setTimeout(
      () => late.abort(new ConnectTimeoutError(`there was no connection within ${timeoutMs} ms`)),
      timeoutMs,
    );
    try {
      if (isProxy) return await this.#dialProxy({ ...target, isTls: target.protocol === 'https:' }, late.signal);
      if (target.protocol !== 'https:') return await this.#dial(target, late.signal);
      const socket =
        proxy === undefined
          ? await this.#dial(target, late.signal)
          : await openTunnel(proxy, await this.#dialProxy(proxy, late.signal), target, late.signal);
      return await this.#startTls(socket, target, late.signal);
    } catch (error) {
      throw toNetworkFault(error, hostAndPort(target), proxy && hostAndPort(proxy));
    } finally {
      clearTimeout(timer);
    }
  }

  async #dial({ hostname, port }: Pick<Target, 'hostname' | 'port'>, signal: AbortSignal): Promise<Socket> {
    const socket = await raceConnect(hostname, port, signal, this.#options.parts);
    return socket.setNoDelay(true).setKeepAlive(true, KEEP_ALIVE_DELAY_MS);
  }

  async #dialProxy(proxy: Pick<ProxyServer, 'hostname' | 'isTls' | 'port'>, signal: AbortSignal): Promise<Socket> {
    try {
      const socket = await this.#dial(proxy, signal);
      return proxy.isTls ? await this.#startTls(socket, proxy, signal) : socket;
    } catch (error) {
      if (signal.aborted) throw error;
      const host = hostAndPort(proxy);
      throw new NetworkFault('proxy-unreachable', host, toNetworkFault(error, host).message, error);
    }
  }

  async #startTls(
    socket: Socket,
    { hostname, port }: Pick<Target, 'hostname' | 'port'>,
    signal: AbortSignal,
  ): Promise<Socket> {
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    const { secureContext, tlsSessions } = this.#options;
    const key = hostAndPort({ hostname, port });
    const session = tlsSessions.get(key);
    const tls = connectTls({
      socket,
      secureContext: secureContext(),
      // Over HTTP/2 undici would take one connection for all, with a window that a fast link far away outgrows.
      ALPNProtocols: ['http/1.1'],
      host: hostname,
      ...(isName(hostname) && { servername: hostname }),
      ...(session !== undefined && { session }),
    });
    tls.on('session', (ticket: Buffer) => tlsSessions.set(key, ticket));
    tls.once('secureConnect', () => resolve(undefined));
    tls.once('error', reject);
    using _listener = onAbort(signal, reject);
    try {
      await promise;
      return tls.off('error', reject);
    } catch (error) {
      tls.on('error', () => undefined).destroy();
      throw error;
    }
  }
}

/** A certificate can be asked for by name, not by address (RFC 6066 section 3). */
function isName(hostname: string): boolean {
  return !/^[\d.]+$/.test(hostname) && !hostname.includes(':');
}
