import { LoaderError, PassingError } from '../errors.ts';
import { asRecord } from '../json.ts';
import { toLinkError, type Link } from '../link-errors.ts';
import { AnswerTooLongError, DeadlineError, jsonOf, type BoundedAnswer } from '../net/bounded-call.ts';
import { toNetworkFault } from '../net/network-fault.ts';
import { hostAndPort, targetOf } from '../net/proxy-rules.ts';
import { retryAfterOf } from '../net/retry-after.ts';

/*
 * What the answers of the Resource API mean, and its silence. Messages and causes never quote an answer: it may be a token.
 */

/** Bytes of a token: it goes back to the API in the headers of each request, which servers limit to as much or less. */
const MAX_TOKEN_LENGTH = 16 * 1024;

const LINK: Link = {
  who: 'The Resource API',
  setting: 'RESOURCE_API_URL',
  unreachable: 'api_unreachable',
  timeout: 'api_timeout',
  invalid: 'api_invalid_response',
};

/** Why a call brought no answer. */
export function toApiError(
  error: unknown,
  { baseUrl, timeoutMs }: { baseUrl: string; timeoutMs: number },
): LoaderError {
  if (error instanceof LoaderError) return error;
  const host = hostOf(baseUrl);
  const options = { cause: error };
  if (error instanceof DeadlineError) {
    const message = `The Resource API at ${host} did not answer within ${timeoutMs} ms.`;
    return new PassingError('api_timeout', message, options);
  }
  if (error instanceof AnswerTooLongError) {
    const message = `The Resource API at ${host} sent more than 4 MiB; check RESOURCE_API_URL.`;
    return new LoaderError('api_invalid_response', message, options);
  }
  return toLinkError(toNetworkFault(error, host), LINK);
}

function hostOf(url: string): string {
  return hostAndPort(targetOf(new URL(url)));
}

/** A redirect is never followed, since the token would go with it. Of its address, the host alone is shown. */
export function assertNoRedirect({ status, headers }: BoundedAnswer, baseUrl: string): void {
  if (![301, 302, 303, 307, 308].includes(status)) return;
  const location = String(headers['location']);
  const target = URL.canParse(location, baseUrl) ? new URL(location, baseUrl).origin : 'an address that is none';
  throw new LoaderError(
    'api_redirected',
    `The Resource API at ${hostOf(baseUrl)} redirects to ${target} (${status}), which is not followed: if that is the API, set RESOURCE_API_URL to it; if it is a login page of the network, log in there.`,
  );
}

/** Statuses that pass by themselves. 500 rarely does: most APIs answer so to what they can't do at all. */
const PASSING: readonly number[] = [408, 425, 429, 502, 503, 504];

export function isTokenRefused({ status }: BoundedAnswer): boolean {
  return status === 401 || status === 403;
}

export function assertSuccess(answer: BoundedAnswer): BoundedAnswer {
  const { status, headers } = answer;
  const message = `The Resource API answered with status ${status}.`;
  if (PASSING.includes(status)) throw new PassingError('api_error', message, { retryAfterMs: retryAfterOf(headers) });
  if (status === 500) throw new PassingError('api_error', message, { isDoubtful: true });
  assertNoWebPage(answer);
  if (status === 404) {
    throw new LoaderError('resource_not_in_api', 'The Resource API has no file of that name in that folder.');
  }
  if (status >= 200 && status < 300) return answer;
  throw new LoaderError('api_error', message);
}

/** Such as that of a gateway, or of a network that wants a login. */
function assertNoWebPage({ headers }: BoundedAnswer): void {
  if (!String(headers['content-type'] ?? '').startsWith('text/html')) return;
  const message = 'The Resource API sent a web page; check RESOURCE_API_URL.';
  throw new PassingError('api_invalid_response', message, { isDoubtful: true });
}

export function parseToken(answer: BoundedAnswer): string {
  const token = asRecord(jsonOf(answer))?.['token'];
  if (typeof token === 'string' && token.length > MAX_TOKEN_LENGTH) {
    throw new LoaderError(
      'token_invalid',
      'The Resource API sent a token of more than 16 KiB; check RESOURCE_API_URL.',
    );
  }
  if (typeof token === 'string') return token;
  throw new LoaderError('api_invalid_response', 'The Resource API sent no token; check RESOURCE_API_URL.');
}
