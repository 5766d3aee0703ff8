import { execFile } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const ROOT = path.resolve(import.meta.dirname, '../..');
/** Everything that the services of tests and bench write: git ignores it. */
export const SERVICES_FOLDER = path.join(ROOT, '.services');
const SCRIPTS = path.join(ROOT, 'test/services');

export interface S3Service {
  readonly endpoint: string;
  readonly accessKey: string;
  readonly accessSecret: string;
}

/** Starts the Ceph RADOS Gateway on loopback, or finds the one that runs; installs it from Debian when it is absent. */
export async function startRgw(name = 'rgw'): Promise<S3Service> {
  const folder = path.join(SERVICES_FOLDER, name);
  await mkdir(folder, { recursive: true });
  const { stdout } = await run('bash', [path.join(SCRIPTS, 'rgw-up.sh'), folder]);
  const values = new Map(stdout.split('\n').map((line) => line.split('=', 2) as [string, string]));
  return {
    endpoint: values.get('S3_ENDPOINT') ?? '',
    accessKey: values.get('S3_KEY') ?? '',
    accessSecret: values.get('S3_SECRET') ?? '',
  };
}

/** Stops it and throws its data away. */
export async function stopRgw(name = 'rgw'): Promise<void> {
  await run('bash', [path.join(SCRIPTS, 'rgw-down.sh'), path.join(SERVICES_FOLDER, name), '--purge']);
}

/** Installs Debian packages whose command is not there. Needs root. */
export async function installDebianPackages(packages: readonly string[]): Promise<void> {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  await run('apt-get', ['update'], { env });
  await run('apt-get', ['install', '-y', '--no-install-recommends', ...packages], { env, maxBuffer: 1 << 26 });
}
