import { LoaderError, systemErrorCode } from '../errors.ts';
import { abortReason } from '../async/abort.ts';
import { asRecord } from '../json.ts';
import { AnswerTooLongError } from '../net/bounded-call.ts';

/** An error of the AWS SDK as a LoaderError. A LoaderError, and the reason of an aborted `signal`, stay what they are. */
export function toCdnError(error: unknown, signal: AbortSignal): Error {
  if (error instanceof LoaderError) return error;
  if (signal.aborted) return abortReason(signal);
  if (error instanceof AnswerTooLongError || systemErrorCode(error) === 'UND_ERR_HEADERS_OVERFLOW') {
    const message = 'The CDN sent a longer answer than any S3 server does; check host in cdn.yaml.';
    return new LoaderError('cdn_invalid_response', message, { cause: error });
  }
  const name = error instanceof Error ? error.name : '';
  const status = httpStatus(error);
  if (status === 412) return objectChanged(error);
  if (status === 404 && (name === 'NoSuchKey' || name === 'NoSuchBucket' || name === 'NotFound')) {
    return new LoaderError('resource_not_in_cdn', 'The CDN has no big part of that name in that folder.', {
      cause: error,
    });
  }
  if (status === 401 || status === 403) {
    return new LoaderError('cdn_access_denied', 'The CDN refused the access keys of cdn.yaml.', { cause: error });
  }
  const code = systemErrorCode(error);
  // The SDK calls a broken connection a TimeoutError too.
  if (code === 'UND_ERR_BODY_TIMEOUT' || (name === 'TimeoutError' && code !== 'ECONNRESET' && code !== 'EPIPE')) {
    return new LoaderError('cdn_timeout', 'The CDN stopped answering.', { cause: error });
  }
  if (status !== undefined && status >= 300) {
    return new LoaderError('cdn_error', `The CDN answered ${status}${name === '' ? '' : ` (${name})`}.`, {
      cause: error,
    });
  }
  return new LoaderError('cdn_unreachable', `The connection to the CDN failed${code ? ` (${code})` : ''}.`, {
    cause: error,
  });
}

export function objectChanged(cause?: unknown): LoaderError {
  const message = 'The big part on the CDN was replaced while it was read; load again.';
  return new LoaderError('cdn_object_changed', message, { cause });
}

/** Whether another attempt may succeed: the connection or the server failed, not the request. */
export function isTransientCdnError(error: unknown): boolean {
  if (!(error instanceof LoaderError)) return false;
  if (error.code === 'cdn_unreachable' || error.code === 'cdn_timeout') return true;
  return error.code === 'cdn_error' && (httpStatus(error.cause) ?? 0) >= 500;
}

function httpStatus(error: unknown): number | undefined {
  const status = asRecord(asRecord(error)?.['$metadata'])?.['httpStatusCode'];
  return typeof status === 'number' ? status : undefined;
}
