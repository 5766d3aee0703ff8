import type { IncomingMessage } from 'node:http';
import { buildApp } from 'fauxqs';

export interface S3Store {
  readonly endpoint: string;
  /** Any other would do. */
  readonly accessKey: string;
  readonly accessSecret: string;
  /** The number of GET requests until now. */
  readonly downloads: number;
  stop(): Promise<void>;
}

/**
 * An S3 store in this process, in memory, for the demo and for tests that need a server with other manners than Ceph's.
 * It takes any access key and any signature: fauxqs checks none. It has no list of unfinished uploads.
 *
 * Listens on a free loopback port; fauxqs's own start function would listen on every interface.
 */
export async function startS3Store(): Promise<S3Store> {
  const app = buildApp({ logger: false, host: '127.0.0.1' });
  let downloads = 0;
  app.server.on('request', (request: IncomingMessage) => {
    if (request.method === 'GET') downloads++;
  });
  const endpoint = await app.listen({ host: '127.0.0.1', port: 0 });
  return {
    endpoint,
    accessKey: 'DEMOACCESSKEY',
    accessSecret: 'demo-access-secret',
    get downloads() {
      return downloads;
    },
    stop: async () => {
      app.server.closeAllConnections();
      await app.close();
    },
  };
}
