import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { ERRORS, type ErrorCode } from '../../errors.ts';
import type { ErrorBody } from '../schemas/error.ts';

/** Responds to what the HTTP parser refused, in the shape of all other errors. There is no request object yet. */
export function answerClientError(error: Error & { code?: string }, socket: Socket): void {
  // The client has left, or has received the first byte of a response: nothing more can be sent.
  if (error.code === 'ECONNRESET' || !socket.writable || socket.bytesWritten > 0) {
    socket.destroy();
    return;
  }
  const code = codeOf(error);
  const status = ERRORS[code].status;
  const body = JSON.stringify({ detail: capitalize(ERRORS[code].meaning), code } satisfies ErrorBody);
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n` +
      'Content-Type: application/json; charset=utf-8\r\n' +
      `Content-Length: ${Buffer.byteLength(body)}\r\n` +
      'Connection: close\r\n\r\n' +
      body,
  );
}

function codeOf(error: { code?: string }): ErrorCode & ('headers_too_large' | 'request_timeout' | 'malformed_request') {
  if (error.code === 'HPE_HEADER_OVERFLOW') return 'headers_too_large';
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') return 'request_timeout';
  return 'malformed_request';
}

function capitalize(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
