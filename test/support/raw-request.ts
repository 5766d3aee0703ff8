import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';

export interface RawAnswer {
  readonly status: number;
  readonly body: { readonly detail?: unknown; readonly code?: string };
}

/** Sends exactly these headers to an app that listens, with no `Host` but the one among them. */
export async function rawRequest(
  app: FastifyInstance,
  method: string,
  path: string,
  headers: Readonly<Record<string, string | readonly string[]>>,
): Promise<RawAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<RawAnswer>();
  const { port } = app.server.address() as AddressInfo;
  const flat = Object.entries(headers).flatMap(([name, values]) => [values].flat().flatMap((value) => [name, value]));
  const sent = request({ host: '127.0.0.1', port, method, path, headers: flat, setHost: false, agent: false });
  sent.on('error', reject);
  sent.on('response', (response) => {
    let text = '';
    response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    response.on('error', reject).on('end', () => {
      resolve({ status: response.statusCode ?? 0, body: text === '' ? {} : (JSON.parse(text) as RawAnswer['body']) });
    });
  });
  sent.end();
  return await promise;
}
