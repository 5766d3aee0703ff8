import { abortReason } from '../async/abort.ts';
import { LoaderError, PassingError, systemErrorCode, type ErrorCode } from '../errors.ts';
import { asRecord } from '../json.ts';
import { toLinkError, type Link } from '../link-errors.ts';
import { AnswerTooLongError } from '../net/bounded-call.ts';
import { NetworkFault, toNetworkFault } from '../net/network-fault.ts';
import { hostAndPort, targetOf } from '../net/proxy-rules.ts';
import { retryAfterOf } from '../net/retry-after.ts';
import type { ObjectLocation } from './object-location.ts';
import { ForeignAnswerError } from './undici-http-handler.ts';

const LINK: Link = {
  who: 'The CDN',
  setting: 'host in cdn.yaml',
  unreachable: 'cdn_unreachable',
  timeout: 'cdn_timeout',
  invalid: 'cdn_invalid_response',
};

/** The failures of the CDN at one host. Each message names it. */
export class CdnErrors {
  readonly #host: string;

  /** `url` is the host of cdn.yaml. */
  constructor(url: string) {
    this.#host = hostAndPort(targetOf(new URL(url)));
  }

  /** An error of the AWS SDK, of a request for `location`, as a LoaderError. A LoaderError, and the reason of an aborted `signal`, stay what they are. */
  of(error: unknown, signal: AbortSignal, location: ObjectLocation): Error {
    if (error instanceof LoaderError) return error;
    if (signal.aborted) return abortReason(signal);
    if (error instanceof AnswerTooLongError || systemErrorCode(error) === 'UND_ERR_HEADERS_OVERFLOW') {
      return this.#error(
        'cdn_invalid_response',
        'sent a longer answer than any S3 server does; check host in cdn.yaml',
        error,
      );
    }
    if (error instanceof ForeignAnswerError) return this.#foreign(error);
    const status = httpStatus(error);
    return status === undefined ? this.#linkError(error) : this.#refusal(error, status, location);
  }

  /** For a connection that moved no byte for `silenceMs`. */
  silent(silenceMs: number): LoaderError {
    return new PassingError('cdn_timeout', `The CDN at ${this.#host} sent nothing for ${silenceMs} ms.`);
  }

  #refusal(error: unknown, status: number, { bucket, key }: ObjectLocation): LoaderError {
    const name = error instanceof Error ? error.name : '';
    if (status === 412) return objectChanged(error);
    if (status === 404 && MISSING.includes(name)) {
      return this.#error('resource_not_in_cdn', `has no ${key} in the bucket ${bucket}`, error);
    }
    if (name === 'NoSuchBucket') {
      const advice = 'check bucket in cdn.yaml, or, without one, the first name of the folder';
      return this.#error('cdn_bucket_missing', `has no bucket ${bucket}: ${advice}`, error);
    }
    if (name === 'RequestTimeTooSkewed') {
      const now = new Date().toISOString();
      const what = `refused the time of a request; this device's clock says ${now}: set it`;
      return this.#passing('clock_wrong', what, error, { isDoubtful: true });
    }
    if (name === 'SignatureDoesNotMatch') {
      const advice = 'check the access secrets of cdn.yaml, and that no proxy on the way changes requests';
      return this.#error('cdn_signature_refused', `refused the signature of a request: ${advice}`, error);
    }
    if (status === 401 || status === 403) {
      const what = 'refused the access key of cdn.yaml: check that it exists and may read, or for an upload write';
      return this.#error('cdn_access_denied', what, error);
    }
    const what = `answered ${status}${name === '' ? '' : ` (${name})`}`;
    if (status >= 500 || PASSING.includes(status) || name === 'RequestTimeout') {
      return this.#passing('cdn_error', what, error);
    }
    return status === 416
      ? this.#passing('cdn_error', what, error, { isDoubtful: true })
      : this.#error('cdn_error', what, error);
  }

  /** A page of a proxy, a firewall, a gateway or a network that wants a login. */
  #foreign(error: ForeignAnswerError): LoaderError {
    if (error.status >= 500) return this.#passing('cdn_error', `answered ${error.status}`, error);
    const what = `gave an answer that no S3 server gives (${error.status}, ${error.contentType}): a proxy, a firewall, a gateway or a login page of the network may stand before it; check host in cdn.yaml`;
    return this.#passing('cdn_foreign_answer', what, error, { isDoubtful: true });
  }

  #linkError(error: unknown): LoaderError {
    const isLate = error instanceof Error && error.name === 'TimeoutError' && systemErrorCode(error) === undefined;
    const fault = isLate
      ? new NetworkFault('late', this.#host, 'it stopped answering', error)
      : toNetworkFault(error, this.#host);
    return toLinkError(fault, LINK);
  }

  #error(code: ErrorCode, what: string, cause: unknown): LoaderError {
    return new LoaderError(code, `The CDN at ${this.#host} ${what}.`, { cause });
  }

  #passing(code: ErrorCode, what: string, cause: unknown, { isDoubtful = false } = {}): PassingError {
    const retryAfterMs = retryAfterOf(headersOf(cause));
    return new PassingError(code, `The CDN at ${this.#host} ${what}.`, { cause, isDoubtful, retryAfterMs });
  }
}

export function objectChanged(cause?: unknown): LoaderError {
  const message = 'The big part on the CDN was replaced while it was read; load again.';
  return new LoaderError('cdn_object_changed', message, { cause });
}

/** What S3 servers call a missing object, and the SDK where the answer has no body. */
const MISSING: readonly string[] = ['NoSuchKey', 'NoSuchUpload', 'NotFound'];
/** Statuses below 500 that pass by themselves: 408 Request Timeout, 425 Too Early, 429 Too Many Requests. */
const PASSING: readonly number[] = [408, 425, 429];

export function httpStatus(error: unknown): number | undefined {
  const status = asRecord(asRecord(error)?.['$metadata'])?.['httpStatusCode'];
  return typeof status === 'number' ? status : undefined;
}

/** Of the answer that became an error of the SDK. */
function headersOf(error: unknown): Readonly<Record<string, unknown>> {
  if (error instanceof ForeignAnswerError) return error.headers;
  return asRecord(asRecord(asRecord(error)?.['$response'])?.['headers']) ?? {};
}
