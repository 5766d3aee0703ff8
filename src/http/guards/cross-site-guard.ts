import type { FastifyInstance, FastifyRequest } from 'fastify';
import { LoaderError } from '../../errors.ts';

/** Their routes change nothing, and no page of another site may read what they return. */
const READING_METHODS = ['GET', 'HEAD', 'OPTIONS'];

/**
 * Refuses requests that a page of another site sends with a method that may change something. A browser sends forms and
 * simple requests of every page, without asking the Loader first.
 *
 * Clients that are no browsers send neither `Sec-Fetch-Site` nor `Origin`. The first is right behind a proxy too, but
 * browsers send it only to https and to loopback. Elsewhere, `Origin` must name the host of the request.
 */
export function registerCrossSiteGuard(app: FastifyInstance): void {
  app.addHook('onRequest', async (request) => {
    if (READING_METHODS.includes(request.method) || isOfOwnSite(request)) return Promise.resolve();
    throw new LoaderError(
      'cross_site',
      'A page of another site sent this request: use a page of the Loader, or a program that is no browser.',
    );
  });
}

function isOfOwnSite({ headers }: FastifyRequest): boolean {
  const site = headers['sec-fetch-site'];
  // `none` is the user's own act. `same-site` is another port, or another name of the domain.
  if (site !== undefined) return site === 'same-origin' || site === 'none';
  const { origin } = headers;
  if (origin === undefined) return true;
  return URL.canParse(origin) && new URL(origin).host === headers.host?.toLowerCase();
}
