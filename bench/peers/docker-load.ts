import { access, constants } from 'node:fs/promises';
import { CURL, DOCKER, OPENSSL } from '../debian-tools.ts';
import type { ImageArchive } from '../image-archive.ts';
import { runPipeline, type ProcessOptions } from '../run-process.ts';

/** What a shell script does in the Loader's place: `docker load`, and `openssl enc -d` before it. */
export class DockerLoad {
  /** `docker load`, or what does the same where Debian has the command in a package of its own. */
  readonly name: string;
  readonly #loadStdin: string;
  readonly #loadFile: string;
  readonly #socketPath: string;
  readonly #options: ProcessOptions;

  private constructor(hasCommand: boolean, host: string, signal: AbortSignal) {
    this.name = hasCommand ? 'docker load' : 'curl to the engine';
    this.#loadStdin = hasCommand ? `${DOCKER} load` : `${CURL_LOAD} -T -`;
    this.#loadFile = hasCommand ? `${DOCKER} load -i "$1"` : `${CURL_LOAD} -T "$1"`;
    this.#socketPath = host.slice('unix://'.length);
    // Without a user's settings.
    this.#options = { signal, env: { DOCKER_HOST: host, DOCKER_CONFIG: '/nonexistent' } };
  }

  /** `host` as in DOCKER_HOST, with a Unix socket. */
  static async create(host: string, signal: AbortSignal): Promise<DockerLoad> {
    const hasCommand = await access(DOCKER, constants.X_OK).then(
      () => true,
      () => false,
    );
    return new DockerLoad(hasCommand, host, signal);
  }

  /** Loads the tar as it is. Returns the time in ms. */
  async loadPlain(archive: ImageArchive): Promise<number> {
    return await this.#run(this.#loadFile, archive);
  }

  /** Loads the envelope, of which openssl gets all but the IV. Returns the time in ms. */
  async loadEncrypted(archive: ImageArchive): Promise<number> {
    return await this.#run(`${DECRYPT} | ${this.#loadStdin}`, archive);
  }

  async #run(script: string, { tarPath, envelopePath, keyHex, ivHex }: ImageArchive): Promise<number> {
    const args = [tarPath, envelopePath, keyHex, ivHex, this.#socketPath];
    return (await runPipeline(script, args, this.#options)).wallMs;
  }
}

const DECRYPT = `tail -c +17 "$2" | ${OPENSSL} enc -d -aes-256-cbc -K "$3" -iv "$4"`;
const CURL_LOAD =
  `${CURL} -q -sSf -o /dev/null --unix-socket "$5" -X POST -H "Content-Type: application/x-tar" -H "Expect:" ` +
  '"http://docker/images/load?quiet=1"';
