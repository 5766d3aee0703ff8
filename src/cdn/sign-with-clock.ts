import type { S3Client } from '@aws-sdk/client-s3';
import { asRecord } from '../json.ts';
import type { ClockRefusal, ServerClock } from '../net/server-clock.ts';

/** What servers call a signature that they refuse for its time. HEAD has no body, and so no name, which is Unknown then. */
const REFUSALS: readonly string[] = ['RequestTimeTooSkewed', 'SignatureDoesNotMatch', 'AccessDenied', 'Unknown'];

type Middleware = Parameters<S3Client['middlewareStack']['addRelativeTo']>[0];

/**
 * Lets the signatures of a client take the time of `clock`, and sends a request once more, with the time of the server,
 * when it was refused for its time.
 *
 * The SDK corrects its time too, but each client anew, so that the first request of each login fails, and only where it
 * may send again by itself, which the reads of the Loader do not let it. Here one correction serves all clients, and the
 * requests that are under way.
 */
export function signWithClock(client: S3Client, clock: ServerClock): void {
  // The signer adds this to the time of the device. What the SDK would store is ignored.
  Object.defineProperty(client.config, 'systemClockOffset', { get: () => clock.correctionMs, set: () => undefined });
  const sendAgain = (next: (args: unknown) => Promise<unknown>) => async (args: unknown) => {
    const usedMs = clock.correctionMs;
    try {
      return await next(args);
    } catch (error) {
      const refusal = refusalOf(error);
      if (refusal === undefined || !clock.corrects(refusal, usedMs)) throw error;
      return await next(args);
    }
  };
  client.middlewareStack.addRelativeTo(sendAgain as Middleware, {
    name: 'signWithClock',
    relation: 'before',
    toMiddleware: 'httpSigningMiddleware',
  });
}

function refusalOf(error: unknown): ClockRefusal | undefined {
  const fault = asRecord(error);
  const name = String(fault?.['name']);
  if (asRecord(fault?.['$metadata'])?.['httpStatusCode'] !== 403 || !REFUSALS.includes(name)) return undefined;
  const headers = asRecord(asRecord(fault?.['$response'])?.['headers']);
  return { serverTime: fault?.['ServerTime'] ?? headers?.['date'], isAboutTime: name === 'RequestTimeTooSkewed' };
}
