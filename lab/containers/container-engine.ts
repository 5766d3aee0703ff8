import type { Readable } from 'node:stream';
import { EngineSocket, insistOn } from '../services/engine-socket.ts';

export interface ContainerOptions {
  /** ID or tag. */
  readonly image: string;
  /** In place of the image's own. */
  readonly command?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** As `docker run -v` takes them: `volume:/path`, `/path/on/the/host:/path` or the same with `:ro`. */
  readonly volumes?: readonly string[];
  /** Further groups of the process, as `--group-add` takes them. */
  readonly groups?: readonly number[];
  readonly isReadOnly?: boolean;
  /** Of the image's health check, the durations alone, in ms. */
  readonly health?: { readonly intervalMs: number; readonly timeoutMs: number };
}

export interface ContainerState {
  readonly Running: boolean;
  readonly ExitCode: number;
  readonly Health?: { readonly Status: 'starting' | 'healthy' | 'unhealthy' };
}

export interface CommandResult {
  readonly exitCode: number;
  readonly output: string;
}

/** The network of the machine: the private engines have no other. */
const NETWORK = 'host';
const NS_PER_MS = 1e6;
/** Images without a name that no other stands on, but for those of the last day: the next build needs some of them. */
const OUTDATED = new URLSearchParams({ filters: JSON.stringify({ dangling: ['true'], until: ['24h'] }) });

/** An engine that builds images and runs containers. */
export class ContainerEngine {
  /** As in DOCKER_HOST. */
  readonly host: string;
  readonly #socket: EngineSocket;

  constructor(host: string) {
    this.host = host;
    this.#socket = new EngineSocket(host);
  }

  get socketPath(): string {
    return this.host.slice('unix://'.length);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#socket.close();
  }

  async hasImage(ref: string): Promise<boolean> {
    return (await this.#socket.ask('GET', `/images/${ref}/json`)).status === 200;
  }

  /** Makes an image of a tar with a file system. `changes` are lines as in a Dockerfile. */
  async importImage(tar: Readable, ref: string, changes: readonly string[]): Promise<void> {
    const [repo = '', tag = ''] = ref.split(':');
    const query = new URLSearchParams([
      ['fromSrc', '-'],
      ['repo', repo],
      ['tag', tag],
    ]);
    for (const change of changes) query.append('changes', change);
    await this.#socket.insistOnLines(`/images/create?${query.toString()}`, tar);
  }

  /**
   * Builds the Dockerfile of a tar, and removes what builds of earlier days left.
   * @throws Error with the end of what the build printed
   */
  async build(context: Readable, ref: string, args: Readonly<Record<string, string>>): Promise<void> {
    const query = new URLSearchParams({ t: ref, networkmode: NETWORK, forcerm: '1', buildargs: JSON.stringify(args) });
    await this.#socket.insistOnLines(`/build?${query.toString()}`, context);
    await this.#socket.insist('POST', `/images/prune?${OUTDATED.toString()}`);
  }

  /** Starts a container. */
  async start(options: ContainerOptions): Promise<Container> {
    const { image, command, env = {}, volumes = [], groups = [], isReadOnly = false, health } = options;
    const body = {
      Image: image,
      Env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
      ...(command === undefined ? {} : { Cmd: command }),
      ...(health === undefined
        ? {}
        : { Healthcheck: { Interval: health.intervalMs * NS_PER_MS, Timeout: health.timeoutMs * NS_PER_MS } }),
      HostConfig: {
        NetworkMode: NETWORK,
        ReadonlyRootfs: isReadOnly,
        Binds: volumes,
        GroupAdd: groups.map(String),
      },
    };
    const { Id } = JSON.parse((await this.#socket.insist('POST', '/containers/create', body)).toString()) as {
      Id: string;
    };
    const container = new Container(this.#socket, Id);
    try {
      await this.#socket.insist('POST', `/containers/${Id}/start`);
      return container;
    } catch (error) {
      await container[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Runs a container to its end. */
  async run(options: ContainerOptions): Promise<CommandResult> {
    await using container = await this.start(options);
    const exitCode = await container.ended();
    return { exitCode, output: await container.log() };
  }

  /** One that is not there is no error. */
  async removeVolume(name: string): Promise<void> {
    await this.#socket.insist('DELETE', `/volumes/${name}?force=1`);
  }

  /** Removes containers that have ended: an interrupted run left them. */
  async removeEndedContainers(): Promise<void> {
    await this.#socket.insist('POST', '/containers/prune');
  }
}

/** A container until it is disposed of; then it is killed and removed. */
export class Container {
  readonly id: string;
  readonly #socket: EngineSocket;

  constructor(socket: EngineSocket, id: string) {
    this.#socket = socket;
    this.id = id;
  }

  async state(): Promise<ContainerState> {
    const { State } = JSON.parse((await this.#socket.insist('GET', `/containers/${this.id}/json`)).toString()) as {
      State: ContainerState;
    };
    return State;
  }

  /** What it printed until now, on stdout and stderr. */
  async log(): Promise<string> {
    return joinFrames(await this.#socket.insist('GET', `/containers/${this.id}/logs?stdout=1&stderr=1`));
  }

  /** Runs a command in it, as the user of the image. */
  async exec(...command: readonly string[]): Promise<CommandResult> {
    const body = { AttachStdout: true, AttachStderr: true, Cmd: command };
    const { Id } = JSON.parse((await this.#socket.insist('POST', `/containers/${this.id}/exec`, body)).toString()) as {
      Id: string;
    };
    const output = joinFrames(await this.#socket.insist('POST', `/exec/${Id}/start`, { Detach: false }));
    const { ExitCode } = JSON.parse((await this.#socket.insist('GET', `/exec/${Id}/json`)).toString()) as {
      ExitCode: number;
    };
    return { exitCode: ExitCode, output };
  }

  /** Sends a signal to its first process. */
  async signal(signal: NodeJS.Signals): Promise<void> {
    await this.#socket.insist('POST', `/containers/${this.id}/kill?signal=${signal}`);
  }

  /** What `docker stop` does: SIGTERM, and SIGKILL after 10 s. Returns the exit code. */
  async stop(): Promise<number> {
    await this.#socket.insist('POST', `/containers/${this.id}/stop?t=10`);
    return (await this.state()).ExitCode;
  }

  /** Its exit code when it ends. */
  async ended(): Promise<number> {
    const answer = await this.#socket.insist('POST', `/containers/${this.id}/wait`);
    return (JSON.parse(answer.toString()) as { StatusCode: number }).StatusCode;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // One that was removed already is no error.
    const answer = await this.#socket.ask('DELETE', `/containers/${this.id}?force=1&v=1`);
    if (answer.status !== 404) insistOn(answer);
  }
}

/** What a process printed comes in frames: the number of the stream, three zeros, four bytes of length, then the bytes. */
function joinFrames(frames: Buffer): string {
  const parts: Buffer[] = [];
  for (let at = 0; at + 8 <= frames.length;) {
    const end = at + 8 + frames.readUInt32BE(at + 4);
    parts.push(frames.subarray(at + 8, end));
    at = end;
  }
  return Buffer.concat(parts).toString();
}
