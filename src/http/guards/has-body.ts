import type { IncomingMessage } from 'node:http';

/** Whether a request announces a body. Node says of a request without one that it is not complete, until it is read. */
export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}
