import { BlockList, isIP, isIPv4 } from 'node:net';

/** A proxy that speaks HTTP. */
export interface ProxyServer {
  readonly isTls: boolean;
  /** Without the brackets of an IPv6 address. */
  readonly hostname: string;
  readonly port: number;
  /** The value of Proxy-Authorization. It is a secret. */
  readonly authorization: string | undefined;
}

export interface ProxyRulesOptions {
  /** For http:// */
  readonly http: ProxyServer | undefined;
  /** For https:// */
  readonly https: ProxyServer | undefined;
  /** Names, addresses and ranges that are reached without a proxy, as NO_PROXY lists them. */
  readonly exceptions: readonly string[];
}

/** Where a connection leads. */
export interface Target {
  readonly protocol: string;
  /** Without the brackets of an IPv6 address. */
  readonly hostname: string;
  readonly port: number;
}

type Exception = (target: Target) => boolean;

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8);
LOOPBACK.addAddress('::1', 'ipv6');

/** Finds the proxy of a connection, by the rules that curl has. No connection to this machine itself takes one. */
export class ProxyRules {
  readonly #options: ProxyRulesOptions;
  readonly #exceptions: readonly Exception[];

  constructor(options: ProxyRulesOptions = { http: undefined, https: undefined, exceptions: [] }) {
    this.#options = options;
    this.#exceptions = options.exceptions.map(parseException);
  }

  proxyFor(target: Target): ProxyServer | undefined {
    const proxy = target.protocol === 'https:' ? this.#options.https : this.#options.http;
    if (proxy === undefined || isLoopback(target.hostname)) return undefined;
    return this.#exceptions.some((exception) => exception(target)) ? undefined : proxy;
  }

  /** Whether `target` is the proxy to which requests of plain HTTP go whole. */
  isHttpProxy({ protocol, hostname, port }: Target): boolean {
    const { http } = this.#options;
    return http?.hostname === hostname && http.port === port && http.isTls === (protocol === 'https:');
  }
}

/**
 * Reads the URL of a proxy: http:// or https://, or a host and a port alone, which is http:// as for curl.
 *
 * @throws Error with a sentence that begins after the variable's name, and quotes nothing: the URL may hold a password
 */
export function parseProxyServer(text: string): ProxyServer {
  const url = parseUrl(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`);
  if (url === undefined || !['http:', 'https:'].includes(url.protocol) || !['', '/'].includes(url.pathname)) {
    throw new Error('must be http://host:port or https://host:port, with user:password@ before the host if needed');
  }
  const isTls = url.protocol === 'https:';
  return {
    isTls,
    hostname: withoutBrackets(url.hostname),
    port: portOf(url),
    authorization: authorizationOf(url),
  };
}

/** Host and port, as messages name them. */
export function hostAndPort({ hostname, port }: Pick<Target, 'hostname' | 'port'>): string {
  return `${isIP(hostname) === 6 ? `[${hostname}]` : hostname}:${port}`;
}

/** What a URL leads to. */
export function targetOf(url: URL): Target {
  return { protocol: url.protocol, hostname: withoutBrackets(url.hostname), port: portOf(url) };
}

function parseUrl(text: string): URL | undefined {
  const url = URL.canParse(text) && !/\s/.test(text) ? new URL(text) : undefined;
  return url === undefined || url.hostname === '' || url.search !== '' || url.hash !== '' ? undefined : url;
}

function authorizationOf({ username, password }: URL): string | undefined {
  if (username === '' && password === '') return undefined;
  const pair = `${decode(username)}:${decode(password)}`;
  return `Basic ${Buffer.from(pair).toString('base64')}`;
}

/** A percent sign in a password is often not escaped. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function portOf({ port, protocol }: URL): number {
  return port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port);
}

function isLoopback(hostname: string): boolean {
  const family = isIP(hostname);
  if (family !== 0) return LOOPBACK.check(hostname, family === 4 ? 'ipv4' : 'ipv6');
  return /^(?:.*\.)?localhost\.?$/i.test(hostname);
}

function parseException(entry: string): Exception {
  if (entry === '*') return () => true;
  const range = /^\[?([^\]/]+)\]?\/(\d{1,3})$/.exec(entry);
  if (range !== null) return inRange(range[1] ?? '', Number(range[2]));
  // An IPv6 address with a port stands in brackets; without them, its colons belong to it.
  const [, host = entry, port] = /^(\[[^\]]+\]|[^:]+)(?::(\d+))?$/.exec(entry) ?? [];
  const isName = nameMatcher(withoutBrackets(host).toLowerCase());
  return (target) => (port === undefined || Number(port) === target.port) && isName(target.hostname.toLowerCase());
}

function inRange(address: string, prefix: number): Exception {
  const list = new BlockList();
  const family = isIPv4(address) ? 'ipv4' : 'ipv6';
  try {
    list.addSubnet(address, prefix, family);
  } catch {
    return () => false; // It is no range, and so it matches nothing, as for curl.
  }
  return ({ hostname }) => isIP(hostname) !== 0 && list.check(hostname, isIPv4(hostname) ? 'ipv4' : 'ipv6');
}

/** `example.com` and `.example.com` are the domain and all under it, `*.example.com` is what is under it. */
function nameMatcher(pattern: string): (hostname: string) => boolean {
  const domain = pattern.replace(/^\*?\./, '').replace(/\.$/, '');
  return (hostname) => {
    const name = hostname.replace(/\.$/, '');
    return (name === domain && !pattern.startsWith('*')) || (isIP(name) === 0 && name.endsWith(`.${domain}`));
  };
}

function withoutBrackets(hostname: string): string {
  return hostname.replace(/^\[(.*)\]$/, '$1');
}
