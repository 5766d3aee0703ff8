import { LoaderError, PassingError, type ErrorCode } from './errors.ts';
import type { NetworkFault, NetworkFaultKind } from './net/network-fault.ts';

/** How failures of one server are called. */
export interface Link {
  /** The server, as a sentence begins with it, without its host. */
  readonly who: string;
  /** What names its host, for the operator to check. */
  readonly setting: string;
  readonly unreachable: ErrorCode;
  readonly timeout: ErrorCode;
  readonly invalid: ErrorCode;
}

/** The code of each fault, where it is not the server's own, and what to do about it. */
const FAULTS: Readonly<
  Record<NetworkFaultKind, readonly [code: ErrorCode | 'unreachable' | 'timeout' | 'invalid', advice: string]>
> = {
  'unknown-name': ['unreachable', 'check {setting}, and DNS and the network of this device'],
  unreachable: ['unreachable', 'check {setting} and the network of this device'],
  late: ['timeout', 'check {setting} and the network of this device'],
  'no-http': ['invalid', 'check {setting}'],
  'certificate-date': ['tls_date_wrong', 'set the clock if it is wrong, or renew the certificate'],
  'unknown-ca': ['tls_ca_unknown', 'name a file with the certificate of the CA in UPSTREAM_CA_FILE'],
  'other-host': ['tls_other_host', 'check {setting}, and that no other server answers in its place'],
  'no-tls': ['tls_failed', 'check {setting}, which has https://, and its port'],
  'tls-refused': ['tls_failed', 'see which versions of TLS the server takes, and whether it wants a certificate'],
  'proxy-unreachable': ['proxy_unreachable', 'check HTTP_PROXY and HTTPS_PROXY'],
  'proxy-refused': ['proxy_refused', 'allow the host at the proxy, or add it to NO_PROXY'],
  'proxy-password': ['proxy_refused', 'set HTTP_PROXY and HTTPS_PROXY to http://user:password@host:port'],
};

/** Faults that may pass by themselves, and those of them that rarely do. */
const PASSING: readonly NetworkFaultKind[] = ['unknown-name', 'unreachable', 'late', 'proxy-unreachable'];
const DOUBTFUL: readonly NetworkFaultKind[] = ['no-http', 'no-tls', 'tls-refused', 'proxy-refused'];

/** A fault of the network as a LoaderError, which names the host and what to do. */
export function toLinkError(fault: NetworkFault, link: Link): LoaderError {
  const [name, advice] = FAULTS[fault.kind];
  const code = name === 'unreachable' || name === 'timeout' || name === 'invalid' ? link[name] : name;
  const whom = fault.kind.startsWith('proxy-')
    ? `${link.who} could not be asked through the proxy ${fault.host}`
    : `${link.who} at ${fault.host} gave no answer`;
  const message = `${whom}: ${fault.message}; ${advice.replace('{setting}', link.setting)}.`;
  const isDoubtful = DOUBTFUL.includes(fault.kind);
  if (isDoubtful || PASSING.includes(fault.kind)) return new PassingError(code, message, { cause: fault, isDoubtful });
  return new LoaderError(code, message, { cause: fault });
}
