import { LoaderError, PassingError } from '../errors.ts';
import { asRecord } from '../json.ts';
import { jsonOf, type BoundedAnswer } from '../net/bounded-call.ts';
import { retryAfterOf } from '../net/retry-after.ts';
import { hostOf } from './api-error.ts';

/*
 * What the answers of the Resource API mean (docs/protocol.md section 5). No message quotes one: it may be a token.
 */

/** Bytes of a token: it goes back to the API in the headers of each request, which servers limit to as much or less. */
const MAX_TOKEN_LENGTH = 16 * 1024;

function whoOf(baseUrl: string): string {
  return `The Resource API at ${hostOf(baseUrl)}`;
}

/** A redirect is never followed, since the token would go with it. Of its address, the host alone is shown. */
export function assertNoRedirect({ status, headers }: BoundedAnswer, baseUrl: string): void {
  if (![301, 302, 303, 307, 308].includes(status)) return;
  const location = String(headers['location']);
  const target = URL.canParse(location, baseUrl) ? new URL(location, baseUrl).origin : 'an address that is none';
  throw new LoaderError(
    'api_redirected',
    `${whoOf(baseUrl)} redirects to ${target} (${status}), which is not followed: if that is the API, set RESOURCE_API_URL to it; if it is a login page of the network, log in there.`,
  );
}

/** Statuses that pass by themselves. 500 rarely does: most APIs answer so to what they can't do at all. */
const PASSING: readonly number[] = [408, 425, 429, 502, 503, 504];

export function isTokenRefused({ status }: BoundedAnswer): boolean {
  return status === 401 || status === 403;
}

export function tokenRefused({ status }: BoundedAnswer): LoaderError {
  return new LoaderError(
    'token_refused',
    `The Resource API refuses this user even with a fresh token (${status}): look at the user's rights there.`,
  );
}

/** A 404 says that the API lacks a file where one was asked for, and its own path elsewhere. */
export function assertSuccess(
  answer: BoundedAnswer,
  { baseUrl, file }: { readonly baseUrl: string; readonly file?: string | undefined },
): BoundedAnswer {
  const { status, headers } = answer;
  const message = `${whoOf(baseUrl)} answered with status ${status}.`;
  if (PASSING.includes(status)) throw new PassingError('api_error', message, { retryAfterMs: retryAfterOf(headers) });
  if (status === 500) throw new PassingError('api_error', message, { isDoubtful: true });
  assertNoWebPage(answer, baseUrl);
  if (status === 404 && file !== undefined) {
    const message = `${whoOf(baseUrl)} has no file ${file}: check folder and name, and that it was uploaded.`;
    throw new LoaderError('resource_not_in_api', message);
  }
  if (status >= 200 && status < 300) return answer;
  throw new LoaderError('api_error', status === 404 ? `${message} Check RESOURCE_API_URL.` : message);
}

/** Such as that of a gateway, or of a network that wants a login. */
function assertNoWebPage({ headers }: BoundedAnswer, baseUrl: string): void {
  if (!String(headers['content-type'] ?? '').startsWith('text/html')) return;
  const message = `${whoOf(baseUrl)} sent a web page; check RESOURCE_API_URL.`;
  throw new PassingError('api_invalid_response', message, { isDoubtful: true });
}

export function parseToken(answer: BoundedAnswer, baseUrl: string): string {
  const token = asRecord(jsonOf(answer))?.['token'];
  if (typeof token === 'string' && token.length > MAX_TOKEN_LENGTH) {
    throw new LoaderError(
      'token_invalid',
      `${whoOf(baseUrl)} sent a token of more than 16 KiB; check RESOURCE_API_URL.`,
    );
  }
  if (typeof token === 'string') return token;
  throw new LoaderError('api_invalid_response', `${whoOf(baseUrl)} sent no token; check RESOURCE_API_URL.`);
}
