import { LoaderError, PassingError } from '../errors.ts';
import { toLinkError, type Link } from '../link-errors.ts';
import { AnswerTooLongError, DeadlineError } from '../net/bounded-call.ts';
import { toNetworkFault } from '../net/network-fault.ts';
import { hostAndPort, targetOf } from '../net/proxy-rules.ts';

const LINK: Link = {
  who: 'The Resource API',
  setting: 'RESOURCE_API_URL',
  unreachable: 'api_unreachable',
  timeout: 'api_timeout',
  invalid: 'api_invalid_response',
};

/** Why a call brought no answer. Its message quotes none: an answer may be a token. */
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

/** Host and port of a URL. */
export function hostOf(url: string): string {
  return hostAndPort(targetOf(new URL(url)));
}
