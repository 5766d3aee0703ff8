import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../../lab/free-port.ts';
import { NGINX } from '../debian-tools.ts';

const START_TIMEOUT_MS = 10_000;

/** nginx with one worker and sendfile on loopback: the fastest that a plaintext file gets to curl. */
export class Nginx {
  readonly url: string;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, url: string) {
    this.#child = child;
    this.url = url;
  }

  /** Serves the files of `root`. Everything that it writes lies in `folder`. */
  static async start(root: string, folder: string): Promise<Nginx> {
    await mkdir(folder, { recursive: true });
    const port = await freePort();
    const configPath = path.join(folder, 'nginx.conf');
    const errorLog = path.join(folder, 'error.log');
    await writeFile(configPath, nginxConfig({ root, folder, port, errorLog }));
    // Without -e, it opens the distribution's log before it reads the configuration.
    const child = spawn(NGINX, ['-p', folder, '-e', errorLog, '-c', configPath], { detached: true, stdio: 'ignore' });
    await once(child, 'spawn');
    const nginx = new Nginx(child, `http://127.0.0.1:${port}`);
    try {
      await nginx.#untilListening(port, errorLog);
      return nginx;
    } catch (error) {
      await nginx.stop();
      throw error;
    }
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await exited;
  }

  async #untilListening(port: number, errorLog: string): Promise<void> {
    for (let waitedMs = 0; waitedMs < START_TIMEOUT_MS; waitedMs += 20) {
      if (this.#child.exitCode !== null) break;
      if (await accepts(port)) return;
      await sleep(20);
    }
    throw new Error(`nginx did not start; see ${errorLog}`);
  }
}

function nginxConfig(options: { root: string; folder: string; port: number; errorLog: string }): string {
  const { root, folder, port, errorLog } = options;
  // If root starts it, its worker would be www-data, which may not be able to read the files.
  const user = process.getuid?.() === 0 ? 'user root;' : '';
  const tempPaths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (name) => `${name}_temp_path "${path.join(folder, name)}";`,
  );
  return `
${user}
daemon off;
worker_processes 1;
pid "${path.join(folder, 'nginx.pid')}";
error_log "${errorLog}";
events { worker_connections 64; }
http {
  access_log off;
  sendfile on;
  default_type application/octet-stream;
  ${tempPaths.join('\n  ')}
  server {
    listen 127.0.0.1:${port};
    root "${root}";
  }
}
`;
}

async function accepts(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
