/** Where an engine listens, as DOCKER_HOST tells it. */
export type DockerHost =
  | { readonly kind: 'unix'; readonly socketPath: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly tls: DockerTls | undefined };

/** PEM texts, as docker keeps them in ca.pem, cert.pem and key.pem of DOCKER_CERT_PATH. */
export interface DockerTls {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/**
 * Reads DOCKER_HOST: `unix:///path` or `tcp://host[:port]`. The port is 2375 by default, 2376 with TLS.
 *
 * @throws Error with a sentence that begins after the variable's name
 */
export function parseDockerHost(text: string, tls: DockerTls | undefined): DockerHost {
  if (text.startsWith('unix://')) {
    const socketPath = text.slice('unix://'.length);
    if (!socketPath.startsWith('/'))
      throw new Error('must name a socket by its absolute path, as in unix:///var/run/docker.sock');
    return { kind: 'unix', socketPath };
  }
  const url = text.startsWith('tcp://') && URL.canParse(text) ? new URL(text) : undefined;
  const isBare = url !== undefined && url.hostname !== '' && ['', '/'].includes(url.pathname) && !/[?#@\s]/.test(text);
  if (!isBare) throw new Error(`must be unix:///path or tcp://host:port, not "${text}"`);
  return {
    kind: 'tcp',
    host: `${url.hostname}:${url.port === '' ? (tls === undefined ? 2375 : 2376) : url.port}`,
    tls,
  };
}

/** A DockerHost as text, for messages. */
export function describeDockerHost(host: DockerHost): string {
  return host.kind === 'unix' ? host.socketPath : `tcp://${host.host}`;
}
