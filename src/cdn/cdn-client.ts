import { S3Client } from '@aws-sdk/client-s3';
import type { Dispatcher } from 'undici';
import type { Patience } from '../async/outage.ts';
import type { ServerClock } from '../net/server-clock.ts';
import type { AccessKeyPair } from './cdn-config.ts';
import { CdnErrors } from './cdn-errors.ts';
import { signWithClock } from './sign-with-clock.ts';
import { UndiciHttpHandler } from './undici-http-handler.ts';

/** A client of the AWS SDK, what its failures are called, and how long they are waited out. */
export interface CdnClient {
  readonly s3: S3Client;
  readonly errors: CdnErrors;
  readonly patience: Patience;
  /** How long a connection may be silent before another one is tried, in ms. */
  readonly silenceMs: number;
}

export interface CdnClientOptions {
  /** A URL. */
  readonly host: string;
  readonly region: string;
  readonly keys: AccessKeyPair;
  readonly dispatcher: Dispatcher;
  readonly patience: Patience;
  readonly silenceMs: number;
  readonly clock: ServerClock;
}

/** Makes a client of the CDN. It does no I/O. */
export function createCdnClient(options: CdnClientOptions): CdnClient {
  const { host, region, keys, dispatcher, patience, silenceMs, clock } = options;
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
    requestHandler: new UndiciHttpHandler({ dispatcher, timeoutMs: silenceMs, clock }),
    // The SDK counts tries, and knows nothing of bodies. The callers wait out what may pass.
    maxAttempts: 1,
  });
  signWithClock(s3, clock);
  return { s3, errors: new CdnErrors(host), patience, silenceMs };
}
