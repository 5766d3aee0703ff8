import { randomBytes, randomUUID } from 'node:crypto';
import { appendFile, chmod, chown, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ContainerEngine, type Container, type ContainerOptions } from '../../lab/containers/container-engine.ts';
import { buildLoaderImage } from '../../lab/containers/loader-image.ts';
import { freePort } from '../../lab/free-port.ts';
import { makeImage, makeLayer, saveImages, type Image } from '../../lab/images/image-maker.ts';
import { LoaderClient } from '../../lab/loader-client.ts';
import { DockerCli } from '../../lab/services/docker-cli.ts';
import { CONTAINERS, LOG_FOLDER, noteSecrets } from '../../lab/test-environment.ts';
import { Origin } from '../../lab/upstream/origin.ts';
import { eventually } from '../../lab/waiting.ts';
import { encryptBuffer } from '../../src/security/envelope-cipher.ts';
import { deriveArchiveAesKey } from '../../src/security/key-derivation.ts';

const DOCKERFILE = path.resolve(import.meta.dirname, '../../Dockerfile');
/** The group of the engine's socket: no user of the image is in it. */
export const SOCKET_GROUP = 47_110;
const EMAIL = 'operator@example.com';
/** As in docs/operating.md. */
export const NAMED_VOLUMES = ['loader-models:/app/models', 'loader-state:/app/state'] as const;
/** For a start or an answer, in ms. */
const WAIT_MS = 20_000;

interface DeviceParts {
  readonly engine: ContainerEngine;
  readonly docker: DockerCli;
  readonly image: string;
  readonly packed: Image;
  readonly folder: string;
  readonly origin: Origin;
  readonly user: { readonly email: string; readonly password: string };
  readonly apiKey: string;
}

/** A Loader in a container. */
export interface ContainedLoader {
  readonly container: Container;
  readonly client: LoaderClient;
}

/**
 * A device whose Loader runs as docs/operating.md tells: the image of the Dockerfile with its volumes, the engine's socket
 * and the API key in a file. It unlocks into the engine that runs it.
 */
export class ContainerDevice implements AsyncDisposable {
  readonly engine: ContainerEngine;
  /** The engine as one that gets images. */
  readonly docker: DockerCli;
  /** The name of the Loader's image. */
  readonly image: string;
  /** What the device's archive has. */
  readonly packed: Image;
  readonly user: { readonly email: string; readonly password: string };
  readonly #folder: string;
  readonly #origin: Origin;
  readonly #apiKey: string;
  readonly #stack: AsyncDisposableStack;

  private constructor(parts: DeviceParts, stack: AsyncDisposableStack) {
    this.engine = parts.engine;
    this.docker = parts.docker;
    this.image = parts.image;
    this.packed = parts.packed;
    this.user = parts.user;
    this.#folder = parts.folder;
    this.#origin = parts.origin;
    this.#apiKey = parts.apiKey;
    this.#stack = stack;
  }

  /** Builds the image, and makes all that its Loader needs. */
  static async start(): Promise<ContainerDevice> {
    if (CONTAINERS === undefined) throw new Error('this test needs containers: it must have the option CONTAINER_SKIP');
    await using stack = new AsyncDisposableStack();
    const engine = stack.use(new ContainerEngine(CONTAINERS.host));
    const docker = stack.adopt(new DockerCli(CONTAINERS.host), (cli) => cli.close());
    const image = await buildLoaderImage(engine, CONTAINERS.base, await readFile(DOCKERFILE, 'utf8'));

    const folder = await mkdtemp(path.join(tmpdir(), 'loader-container-'));
    stack.defer(() => rm(folder, { recursive: true, force: true }));
    const user = { email: EMAIL, password: `password-${randomBytes(12).toString('hex')}` };
    const apiKey = `key-${randomBytes(12).toString('hex')}`;
    const users = [{ ...user, role: 'Operator' }];
    const origin = stack.adopt(await Origin.start({ folder: path.join(folder, 'origin'), users }), (it) => it.stop());
    noteSecrets(user.password, apiKey, origin.resourceKey, origin.jwtSecret, origin.keyFragment.toString('hex'));

    const layers = [makeLayer({ 'app/name': randomUUID() })];
    const packed = makeImage({ tags: ['azaion-test/contained:1'], layers });
    stack.defer(() => docker.remove(packed.id));
    await mkdir(path.join(folder, 'azaion'));
    const archive = encryptBuffer(saveImages([packed]), deriveArchiveAesKey(origin.keyFragment));
    await writeFile(path.join(folder, 'azaion/images.enc'), archive);
    await writeFile(path.join(folder, 'api-key'), apiKey, { mode: 0o644 });

    await chown(engine.socketPath, 0, SOCKET_GROUP);
    await chmod(engine.socketPath, 0o660);
    const parts = { engine, docker, image, packed, folder, origin, user, apiKey };
    return new ContainerDevice(parts, stack.move());
  }

  /**
   * Runs a Loader, without volumes but those of the image unless `options` has some, while `use` works with it. What it logged is
   * kept for the test of secrets.
   */
  async withLoader(options: Partial<ContainerOptions>, use: (loader: ContainedLoader) => Promise<void>): Promise<void> {
    await removeNamedVolumes(this.engine);
    const port = await freePort();
    await using container = await this.engine.start({
      image: this.image,
      env: {
        PORT: String(port),
        RESOURCE_API_URL: this.#origin.api.url,
        API_KEY_FILE: '/run/secrets/api-key',
        LOG_LEVEL: 'trace',
      },
      ...options,
      volumes: [
        `${path.join(this.#folder, 'api-key')}:/run/secrets/api-key:ro`,
        `${path.join(this.#folder, 'azaion')}:/opt/azaion:ro`,
        `${this.engine.socketPath}:/var/run/docker.sock`,
        ...(options.volumes ?? []),
      ],
    });
    const url = `http://127.0.0.1:${port}`;
    try {
      await untilItAnswers(container, url);
      await use({
        container,
        client: new LoaderClient({ url, apiKey: this.#apiKey, signal: AbortSignal.timeout(WAIT_MS) }),
      });
    } finally {
      await appendFile(path.join(LOG_FOLDER, 'container.log'), await container.log());
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await removeNamedVolumes(this.engine);
    await this.#stack.disposeAsync();
  }
}

async function removeNamedVolumes(engine: ContainerEngine): Promise<void> {
  for (const volume of NAMED_VOLUMES) await engine.removeVolume(volume.split(':')[0] ?? '');
}

/** @throws Error with the log of one that has ended */
async function untilItAnswers(container: Container, url: string): Promise<void> {
  await eventually(
    async () => {
      if (!(await container.state()).Running) throw new Error(`the Loader has ended: ${await container.log()}`);
      return await fetch(`${url}/health`).then(
        ({ ok }) => ok,
        () => false,
      );
    },
    { timeoutMs: WAIT_MS, pollMs: 50, what: 'an answer of the Loader' },
  );
}
