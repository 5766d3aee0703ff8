import { S3Client } from '@aws-sdk/client-s3';
import type { Dispatcher } from 'undici';
import type { ServerClock } from '../net/server-clock.ts';
import type { AccessKeyPair } from './cdn-config.ts';
import { CdnErrors } from './cdn-errors.ts';
import { signWithClock } from './sign-with-clock.ts';
import { UndiciHttpHandler } from './undici-http-handler.ts';

/** A client of the AWS SDK, and what its failures are called. */
export interface CdnClient {
  readonly s3: S3Client;
  readonly errors: CdnErrors;
}

export interface CdnClientOptions {
  /** A URL. */
  readonly host: string;
  readonly region: string;
  readonly keys: AccessKeyPair;
  readonly dispatcher: Dispatcher;
  /** How long the CDN may be silent, before the headers and within a body, in ms. */
  readonly timeoutMs: number;
  /** Of each request, by the SDK. */
  readonly maxAttempts: number;
  readonly clock: ServerClock;
}

/** Makes a client of the CDN. It does no I/O. */
export function createCdnClient(options: CdnClientOptions): CdnClient {
  const { host, region, keys, dispatcher, timeoutMs, maxAttempts, clock } = options;
  const s3 = new S3Client({
    endpoint: host,
    region,
    credentials: keys,
    forcePathStyle: true,
    // S3-compatible servers reject the streamed trailers that the SDK sends by default.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // Some servers and proxies never answer `Expect: 100-continue`, and undici does not send it.
    expectContinueHeader: false,
    requestHandler: new UndiciHttpHandler({ dispatcher, timeoutMs, clock }),
    maxAttempts,
  });
  signWithClock(s3, clock);
  return { s3, errors: new CdnErrors(host) };
}
