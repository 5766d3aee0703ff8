import { isIP } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { LoaderError } from '../../errors.ts';

export interface HostGuardOptions {
  /** In lower case. A name that begins with a dot stands for the domain and all names under it. */
  readonly allowedHosts: readonly string[];
}

/** No server of the internet can have such a name: RFC 6761, RFC 6762, and ICANN's reservation of `internal`. */
const PRIVATE_DOMAINS = ['.localhost', '.local', '.internal'];

/**
 * Refuses requests whose Host is a name of the internet that is not allowed. A page of a foreign site can let its own name
 * point to the Loader, and would then be of the same origin for the browser (DNS rebinding). It can't do so with an IP
 * address, with a name without a dot, such as a container's, or with a name in a private domain.
 *
 * Register it only where no API key is set: such a page does not know one.
 */
export function registerHostGuard(app: FastifyInstance, { allowedHosts }: HostGuardOptions): void {
  app.addHook('onRequest', async ({ headers: { host }, routeOptions, is404 }) => {
    // Without the header it is HTTP/1.0, and no browser.
    if (host === undefined || routeOptions.config.access === 'open' || is404) return Promise.resolve();
    const name = hostName(host);
    if (name !== undefined && (isPrivate(name) || isListed(name, allowedHosts))) return Promise.resolve();
    throw new LoaderError(
      'host_not_allowed',
      'The Host header has a name that is not allowed: add the name to ALLOWED_HOSTS, or set API_KEY.',
    );
  });
}

/** The name or the address in a Host header, without the port and the dot at the end. */
function hostName(host: string): string | undefined {
  const [, name] = /^(\[[\da-f:.]+\]|[^:@/[\]\s]*)(?::\d{0,5})?$/.exec(host.toLowerCase()) ?? [];
  return name?.replace(/\.$/, '');
}

function isPrivate(name: string): boolean {
  if (name.startsWith('[')) return isIP(name.slice(1, -1)) === 6;
  return !name.includes('.') || isIP(name) === 4 || PRIVATE_DOMAINS.some((domain) => name.endsWith(domain));
}

function isListed(name: string, allowedHosts: readonly string[]): boolean {
  return allowedHosts.some((allowed) => name === allowed || (allowed.startsWith('.') && `.${name}`.endsWith(allowed)));
}
