import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls';
import type { Dispatcher } from 'undici';
import { Connector } from './connector.ts';
import { measureCalls, type OnCall } from './measured-calls.ts';
import { hostAndPort, ProxyRules, targetOf, type ProxyServer } from './proxy-rules.ts';
import { passwordNeeded } from './tunnel.ts';
import type { RaceConnectParts } from './race-connect.ts';
import { Agent, DecoratorHandler } from './undici-parts.ts';

export interface DispatchersOptions {
  readonly proxies?: ProxyRules | undefined;
  /** PEM texts of CAs that are trusted beside those of Node and of NODE_EXTRA_CA_CERTS. */
  readonly caCertificates?: readonly string[] | undefined;
  /** What a test replaces. */
  readonly parts?: RaceConnectParts | undefined;
}

export interface DispatcherOptions {
  /** For a new connection, from the name of the host to the end of the TLS handshake, in ms. */
  readonly connectTimeoutMs: number;
  /** Connections to one host; further requests wait for a free one. */
  readonly connections: number;
  /** Is told of each call's answer or failure. */
  readonly onCall?: OnCall;
}

/** How long an idle connection is kept, in ms, where the server does not say how long it keeps it. Common servers keep it for 65 s or more. */
const IDLE_MS = 60_000;
/** The same where the server says more. */
const MAX_IDLE_MS = 300_000;

/**
 * Makes the dispatchers of undici, by which all calls over the network go out: over HTTP/1.1, through the proxies, and
 * with the trusted CAs. Each keeps its connections from call to call, and TLS sessions are shared.
 *
 * The caller watches over its calls: no dispatcher has a timeout for an answer.
 */
export class Dispatchers {
  readonly #options: DispatchersOptions;
  readonly #proxies: ProxyRules;
  readonly #tlsSessions = new Map<string, Buffer>();
  readonly #dispatchers: Dispatcher[] = [];
  #secureContext: SecureContext | undefined;

  constructor(options: DispatchersOptions = {}) {
    this.#options = options;
    this.#proxies = options.proxies ?? new ProxyRules();
  }

  create({ connectTimeoutMs, connections, onCall }: DispatcherOptions): Dispatcher {
    const connector = new Connector({
      timeoutMs: connectTimeoutMs,
      proxies: this.#proxies,
      secureContext: () => (this.#secureContext ??= this.#createSecureContext()),
      tlsSessions: this.#tlsSessions,
      parts: this.#options.parts,
    });
    const agent = new Agent({
      connect: connector.connect,
      connections,
      pipelining: 1,
      allowH2: false,
      keepAliveTimeout: IDLE_MS,
      keepAliveMaxTimeout: MAX_IDLE_MS,
      headersTimeout: 0,
      bodyTimeout: 0,
    });
    const interceptors = [throughProxies(this.#proxies), ...(onCall ? [measureCalls(onCall)] : [])];
    const dispatcher = agent.compose(interceptors);
    this.#dispatchers.push(dispatcher);
    return dispatcher;
  }

  /** Breaks all connections off. */
  async destroy(): Promise<void> {
    await Promise.all(this.#dispatchers.map((dispatcher) => dispatcher.destroy()));
  }

  /** It is made once: to read the CAs takes longer than a handshake. */
  #createSecureContext(): SecureContext {
    const { caCertificates = [] } = this.#options;
    if (caCertificates.length === 0) return createSecureContext();
    return createSecureContext({ ca: [...getCACertificates('default'), ...caCertificates] });
  }
}

/** Requests of plain HTTP go to their proxy whole (RFC 9112 section 3.2.2). Those of TLS get a tunnel from the connector. */
function throughProxies(proxies: ProxyRules): Dispatcher.DispatcherComposeInterceptor {
  return (dispatch) => (options, handler) => {
    const url = new URL(options.origin ?? '');
    const proxy = url.protocol === 'http:' ? proxies.proxyFor(targetOf(url)) : undefined;
    if (proxy === undefined) return dispatch(options, handler);
    const headers = {
      ...(options.headers as Readonly<Record<string, string>> | undefined),
      host: url.host,
      ...(proxy.authorization !== undefined && { 'proxy-authorization': proxy.authorization }),
    };
    const origin = `${proxy.isTls ? 'https' : 'http'}://${hostAndPort(proxy)}`;
    const path = `${url.origin}${options.path}`;
    return dispatch({ ...options, origin, path, headers }, new ProxyAnswerHandler(handler, proxy));
  };
}

/** A 407 is the proxy's own, and no answer of the host. */
class ProxyAnswerHandler extends DecoratorHandler implements Dispatcher.DispatchHandler {
  readonly #handler: Dispatcher.DispatchHandler;
  readonly #proxy: ProxyServer;

  constructor(handler: Dispatcher.DispatchHandler, proxy: ProxyServer) {
    super(handler);
    this.#handler = handler;
    this.#proxy = proxy;
  }

  onResponseStart(...args: Parameters<NonNullable<Dispatcher.DispatchHandler['onResponseStart']>>): void {
    const [controller, status] = args;
    if (status === 407) controller.abort(passwordNeeded(this.#proxy));
    else this.#handler.onResponseStart?.(...args);
  }
}
