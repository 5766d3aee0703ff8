import type { IncomingMessage } from 'node:http';

/** Whether a request announces a body. `complete` does not tell: Node sets it only when the request was read. */
export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}
