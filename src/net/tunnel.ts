import { request, type IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { onAbort } from '../async/abort.ts';
import { NetworkFault } from './network-fault.ts';
import { hostAndPort, type ProxyServer, type Target } from './proxy-rules.ts';

/**
 * Asks a proxy, over a connection to it, for a connection to `target` (CONNECT, RFC 9110 section 9.3.6).
 *
 * @throws NetworkFault of the proxy; the reason of `signal`
 */
export async function openTunnel(
  proxy: ProxyServer,
  socket: Socket,
  target: Target,
  signal: AbortSignal,
): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const authority = hostAndPort(target);
  const asking = request({
    method: 'CONNECT',
    path: authority,
    headers: {
      host: authority,
      ...(proxy.authorization !== undefined && { 'proxy-authorization': proxy.authorization }),
    },
    createConnection: () => socket,
  });
  // Node tells every answer by this event, whatever its status.
  asking.once('connect', (answer: IncomingMessage, _socket, head: Buffer) => {
    const fault = refusalOf(answer.statusCode ?? 0, head, proxy);
    if (fault === undefined) resolve(socket);
    else reject(fault);
  });
  asking.once('error', (error) => reject(brokenTunnel(error, proxy)));
  using _listener = onAbort(signal, reject);
  asking.end();
  try {
    return await promise;
  } catch (error) {
    socket.on('error', () => undefined).destroy();
    throw error;
  }
}

/** For status 407, of a tunnel or of a request that went to the proxy whole. */
export function passwordNeeded(proxy: ProxyServer): NetworkFault {
  return new NetworkFault('proxy-password', hostAndPort(proxy), 'it asks for a user and a password (status 407)');
}

function refusalOf(status: number, head: Buffer, proxy: ProxyServer): NetworkFault | undefined {
  if (status === 407) return passwordNeeded(proxy);
  const host = hostAndPort(proxy);
  if (status < 200 || status > 299) {
    return new NetworkFault('proxy-refused', host, `it did not let the connection through (status ${status})`);
  }
  // In TLS, the side that asked speaks first.
  return head.length === 0 ? undefined : new NetworkFault('proxy-refused', host, 'it answered in place of the host');
}

function brokenTunnel(error: NodeJS.ErrnoException, proxy: ProxyServer): NetworkFault {
  const code = error.code ?? 'unknown';
  return code.startsWith('HPE_')
    ? new NetworkFault('proxy-refused', hostAndPort(proxy), `it is no HTTP proxy (${code})`, error)
    : new NetworkFault('proxy-unreachable', hostAndPort(proxy), `the connection broke (${code})`, error);
}
