import { abortReason } from '../async/abort.ts';
import { LoaderError, systemErrorCode, type ErrorCode } from '../errors.ts';
import { asRecord } from '../json.ts';
import { toLinkError, type Link } from '../link-errors.ts';
import { AnswerTooLongError } from '../net/bounded-call.ts';
import { NetworkFault, toNetworkFault } from '../net/network-fault.ts';
import { hostAndPort, targetOf } from '../net/proxy-rules.ts';

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

  /** An error of the AWS SDK as a LoaderError. A LoaderError, and the reason of an aborted `signal`, stay what they are. */
  of(error: unknown, signal: AbortSignal): Error {
    if (error instanceof LoaderError) return error;
    if (signal.aborted) return abortReason(signal);
    if (error instanceof AnswerTooLongError || systemErrorCode(error) === 'UND_ERR_HEADERS_OVERFLOW') {
      return this.#error(
        'cdn_invalid_response',
        'sent a longer answer than any S3 server does; check host in cdn.yaml',
        error,
      );
    }
    const status = httpStatus(error);
    return status === undefined ? this.#linkError(error) : this.#refusal(error, status);
  }

  #refusal(error: unknown, status: number): LoaderError {
    const name = error instanceof Error ? error.name : '';
    if (status === 412) return objectChanged(error);
    if (status === 404 && (name === 'NoSuchKey' || name === 'NoSuchBucket' || name === 'NotFound')) {
      return this.#error('resource_not_in_cdn', 'has no big part of that name in that folder', error);
    }
    if (name === 'RequestTimeTooSkewed') {
      const now = new Date().toISOString();
      return this.#error(
        'clock_wrong',
        `refused the time of a request; this device's clock says ${now}: set it`,
        error,
      );
    }
    if (status === 401 || status === 403) {
      return this.#error('cdn_access_denied', 'refused the access keys of cdn.yaml', error);
    }
    return this.#error('cdn_error', `answered ${status}${name === '' ? '' : ` (${name})`}`, error);
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
}

export function objectChanged(cause?: unknown): LoaderError {
  const message = 'The big part on the CDN was replaced while it was read; load again.';
  return new LoaderError('cdn_object_changed', message, { cause });
}

const TRANSIENT: readonly ErrorCode[] = ['cdn_unreachable', 'cdn_timeout', 'proxy_unreachable'];

/** Whether another attempt may succeed: the connection or the server failed, not the request. */
export function isTransientCdnError(error: unknown): boolean {
  if (!(error instanceof LoaderError)) return false;
  if (TRANSIENT.includes(error.code)) return true;
  return error.code === 'cdn_error' && (httpStatus(error.cause) ?? 0) >= 500;
}

function httpStatus(error: unknown): number | undefined {
  const status = asRecord(asRecord(error)?.['$metadata'])?.['httpStatusCode'];
  return typeof status === 'number' ? status : undefined;
}
