import type { FastifyInstance } from 'fastify';
import { LoaderError } from '../../errors.ts';

/** In characters: more than any path that is allowed, percent-encoded, with its query. */
export const MAX_URL_LENGTH = 8192;
const MAX_HEADERS = 100;

/** Refuses requests with a head that is too large. Node refuses those of more than 16 KiB before there is a request. */
export function registerHeadBounds(app: FastifyInstance): void {
  app.addHook('onRequest', async ({ raw: { url = '', rawHeaders } }) => {
    if (url.length > MAX_URL_LENGTH) throw urlTooLong();
    if (rawHeaders.length > MAX_HEADERS * 2) {
      throw new LoaderError('headers_too_large', `The request has more than ${MAX_HEADERS} headers.`);
    }
    // A proxy may go by the one, and a guard by the other.
    if (rawHeaders.filter((text, index) => index % 2 === 0 && text.toLowerCase() === 'host').length > 1) {
      throw new LoaderError('malformed_request', 'The request has more than one Host header.');
    }
    return Promise.resolve();
  });
}

export function urlTooLong(): LoaderError {
  return new LoaderError('url_too_long', `The path and the query are longer than ${MAX_URL_LENGTH} characters.`);
}
