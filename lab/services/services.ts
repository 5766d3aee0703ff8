import { execFile } from 'node:child_process';
import { mkdir, readdir } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const ROOT = path.resolve(import.meta.dirname, '../..');
/**
 * The name of the engine that builds the Loader's image and runs it. It keeps its data from run to run: the image that the
 * Loader's stands on is made once, and the build finds in its cache what has not changed.
 */
export const CONTAINER_ENGINE = 'container-engine';
/** Everything that the services of tests and bench write: git ignores it. The test of test/run.ts has one of its own. */
export const SERVICES_FOLDER = process.env['LOADER_TEST_SERVICES_FOLDER'] ?? path.join(ROOT, '.services');
const SCRIPTS = import.meta.dirname;

export interface S3Service {
  readonly endpoint: string;
  readonly accessKey: string;
  readonly accessSecret: string;
}

export interface DockerService {
  /** `unix://` and the path of its socket, as in DOCKER_HOST. */
  readonly host: string;
  /** The process of dockerd. When this process is killed, all that belongs to the engine ends with it. */
  readonly pid: number;
}

export interface DockerdOptions {
  /** An empty folder on another file system than the services' one. It is emptied again when the engine is stopped. */
  readonly dataRoot?: string;
  /** Keeps the data in memory, where it need not wait for the disk. They outlive the engine until it is stopped. */
  readonly isInMemory?: boolean;
  /** Left out: Debian's engine of this machine, 20.10 with Debian 12. */
  readonly version?: '26.1';
  /** Docker 20.10 has the classic one only. */
  readonly imageStore?: 'classic' | 'containerd';
}

/** Starts the Ceph RADOS Gateway on loopback, or finds the one that runs; installs it from Debian when it is absent. */
export async function startRgw(name = 'rgw'): Promise<S3Service> {
  const values = await startService('rgw-up.sh', name);
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

/**
 * Starts a private Docker engine, or finds the one that runs; starts it on its old data when it was killed; installs it
 * from Debian when it is absent. Needs root. Engines of different names have nothing in common. The options are those
 * of the first start: a later one of the same name needs none.
 */
export async function startDockerd(name = 'dockerd', options: DockerdOptions = {}): Promise<DockerService> {
  const { dataRoot, isInMemory = false, version, imageStore } = options;
  const values = await startService('dockerd-up.sh', name, {
    ...(dataRoot === undefined ? {} : { DOCKERD_DATA_ROOT: dataRoot }),
    ...(isInMemory ? { DOCKERD_DATA_TMPFS: '1' } : {}),
    ...(version === undefined ? {} : { DOCKERD_USR: await unpackDocker26() }),
    ...(imageStore === undefined ? {} : { DOCKERD_IMAGE_STORE: imageStore }),
  });
  return { host: values.get('DOCKER_HOST') ?? '', pid: Number(values.get('DOCKERD_PID')) };
}

/**
 * Unpacks Docker 26.1 of Debian 13 and its libraries, once, and leaves the machine as it is. Needs root. Returns the
 * folder that must lie over /usr where they run.
 */
export async function unpackDocker26(): Promise<string> {
  const folder = path.join(SERVICES_FOLDER, 'debian-13');
  await run('bash', [path.join(SCRIPTS, 'debian-13.sh'), folder, 'docker.io']);
  return path.join(folder, 'usr');
}

/** Stops it, and throws its data away unless it keeps them. */
export async function stopDockerd(name = 'dockerd', { keepsData = false } = {}): Promise<void> {
  const purge = keepsData ? [] : ['--purge'];
  await run('bash', [path.join(SCRIPTS, 'dockerd-down.sh'), path.join(SERVICES_FOLDER, name), ...purge]);
}

/** All whose name begins with `dockerd`: also those of test files that were killed. */
export async function stopAllDockerds(): Promise<void> {
  const names = (await readdir(SERVICES_FOLDER)).filter((name) => name.startsWith('dockerd'));
  await Promise.allSettled(names.map((name) => stopDockerd(name)));
}

/** The values that the script of a service prints. */
async function startService(script: string, name: string, env: Record<string, string> = {}) {
  const folder = path.join(SERVICES_FOLDER, name);
  await mkdir(folder, { recursive: true });
  const { stdout } = await run('bash', [path.join(SCRIPTS, script), folder], { env: { ...process.env, ...env } });
  return new Map(stdout.split('\n').map((line) => line.split('=', 2) as [string, string]));
}

/** Installs Debian packages whose command is not there. Needs root. */
export async function installDebianPackages(packages: readonly string[]): Promise<void> {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  await run('apt-get', ['update'], { env });
  await run('apt-get', ['install', '-y', '--no-install-recommends', ...packages], { env, maxBuffer: 1 << 26 });
}
