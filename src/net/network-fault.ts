import { MAX_CAUSES, systemErrorCode } from '../errors.ts';

/** Why no answer came from a host, as far as it matters for what to do. */
export type NetworkFaultKind =
  /** No resolver knows an address of the host. */
  | 'unknown-name'
  /** Nothing listens there, no route leads there, or the connection broke. */
  | 'unreachable'
  | 'late'
  | 'no-http'
  /** The certificate has expired or is not valid yet, or the clock of this machine is wrong. */
  | 'certificate-date'
  | 'unknown-ca'
  /** The certificate is good, but for other hosts. */
  | 'other-host'
  /** What listens there does not speak TLS, as an HTTP server without it. */
  | 'no-tls'
  /** The two sides could not agree on how to speak TLS, or the certificate is none for servers. */
  | 'tls-refused'
  | 'proxy-unreachable'
  /** The proxy does not let the connection through, or is none. */
  | 'proxy-refused'
  /** The proxy wants to know who asks. */
  | 'proxy-password';

/** A host and its port, as a message names it: it has no path and no password. */
export type HostAndPort = string;

/** A call that got no answer, with the host and the reason in words. */
export class NetworkFault extends Error {
  override readonly name = 'NetworkFault';
  readonly kind: NetworkFaultKind;
  /** The host that was called; for a kind of the proxy, the proxy. */
  readonly host: HostAndPort;
  /** The code of the system, of TLS or of undici, by which other programs know the fault. */
  readonly code: string | undefined;

  /** `what` is the reason, as it stands after the host and a colon. */
  constructor(kind: NetworkFaultKind, host: HostAndPort, what: string, cause?: unknown) {
    super(what, { cause });
    this.kind = kind;
    this.host = host;
    this.code = systemErrorCode(cause);
  }
}

/** No connection came about in time. */
export class ConnectTimeoutError extends Error {
  override readonly name = 'ConnectTimeoutError';
  readonly code = 'ETIMEDOUT';
}

const UNKNOWN_NAME: readonly string[] = ['ENOTFOUND', 'EAI_AGAIN', 'EAI_NODATA', 'EAI_NONAME', 'EAI_FAIL'];
const CERTIFICATE_DATE: readonly string[] = ['CERT_HAS_EXPIRED', 'CERT_NOT_YET_VALID'];
const OTHER_HOST: readonly string[] = ['ERR_TLS_CERT_ALTNAME_INVALID', 'HOSTNAME_MISMATCH'];
const UNKNOWN_CA: readonly string[] = [
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'CERT_UNTRUSTED',
];
/** What OpenSSL makes of the first bytes of an HTTP server and of other servers that speak no TLS. */
const NO_TLS: readonly string[] = [
  'ERR_SSL_WRONG_VERSION_NUMBER',
  'ERR_SSL_PACKET_LENGTH_TOO_LONG',
  'ERR_SSL_HTTP_REQUEST',
  'ERR_SSL_UNEXPECTED_MESSAGE',
  'ERR_SSL_RECORD_LAYER_FAILURE',
];
/** Faults of TLS whose codes do not begin with ERR_SSL_ or ERR_TLS_. */
const OTHER_TLS: readonly string[] = [
  'EPROTO',
  'CERT_REVOKED',
  'CERT_REJECTED',
  'CERT_SIGNATURE_FAILURE',
  'CERT_CHAIN_TOO_LONG',
  'PATH_LENGTH_EXCEEDED',
  'INVALID_CA',
  'INVALID_PURPOSE',
];
const LATE: readonly string[] = [
  'ETIMEDOUT',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
];
/** Longest part of a certificate's list of names that a message shows. */
const MAX_NAMES_LENGTH = 200;

/**
 * The fault of a call to `host` that failed with an error of the system, of TLS or of undici. `proxy` is the one through
 * which it went.
 */
export function toNetworkFault(error: unknown, host: HostAndPort, proxy?: HostAndPort): NetworkFault {
  const known = findFault(error);
  if (known !== undefined) return known;
  const [kind, what] = describe(error);
  return new NetworkFault(
    kind,
    host,
    proxy === undefined ? what : `${what}; it went through the proxy ${proxy}`,
    error,
  );
}

/** The NetworkFault among `error` and its causes. */
export function findFault(error: unknown): NetworkFault | undefined {
  let current = error;
  for (let depth = 0; depth < MAX_CAUSES && current instanceof Error; depth++) {
    if (current instanceof NetworkFault) return current;
    current = current.cause;
  }
  return undefined;
}

function describe(error: unknown): [kind: NetworkFaultKind, what: string] {
  const code = systemErrorCode(error);
  if (code === undefined) return ['unreachable', 'the connection failed'];
  if (UNKNOWN_NAME.includes(code)) return ['unknown-name', `DNS has no address of it (${code})`];
  if (error instanceof ConnectTimeoutError) return ['late', error.message];
  if (LATE.includes(code)) return ['late', `there was no answer in time (${code})`];
  if (code.startsWith('HPE_')) return ['no-http', `what listens there does not speak HTTP (${code})`];
  if (CERTIFICATE_DATE.includes(code)) return ['certificate-date', wrongDate(code)];
  if (UNKNOWN_CA.includes(code)) return ['unknown-ca', `its certificate comes from a CA that is not trusted (${code})`];
  if (OTHER_HOST.includes(code)) return ['other-host', `its certificate is for other hosts${namesOf(error)}`];
  if (NO_TLS.includes(code)) return ['no-tls', `what listens there does not speak TLS (${code})`];
  if (OTHER_TLS.includes(code) || /^ERR_(?:SSL|TLS|OSSL)_/.test(code)) {
    return ['tls-refused', `the TLS handshake failed (${code})`];
  }
  return ['unreachable', unreachable(code)];
}

function wrongDate(code: string): string {
  const what = code === 'CERT_HAS_EXPIRED' ? 'has expired' : 'is not valid yet';
  const now = new Date().toISOString();
  return `its certificate, or that of a CA above it, ${what}, or the clock of this device is wrong, which says ${now}`;
}

/** The names in the certificate of Node's error. They come from outside. */
function namesOf(error: unknown): string {
  const { cert } = error as { cert?: { subjectaltname?: unknown } };
  const names = cert?.subjectaltname;
  if (typeof names !== 'string' || names === '') return '';
  return ` (${names.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, MAX_NAMES_LENGTH)})`;
}

function unreachable(code: string): string {
  switch (code) {
    case 'ECONNREFUSED':
      return 'nothing listens there (ECONNREFUSED)';
    case 'ENETUNREACH':
    case 'EHOSTUNREACH':
    case 'EADDRNOTAVAIL':
      return `no route leads there (${code})`;
    default:
      return `the connection broke (${code})`;
  }
}
