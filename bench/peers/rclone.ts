import { OPENSSL, RCLONE } from '../debian-tools.ts';
import { runPipeline, type ProcessOptions } from '../run-process.ts';
import type { BenchResource, Ciphertext, Stage } from '../stage.ts';

/** Reads what `AwsCli.seed` has put there: `rclone cat` and `openssl enc`, joined by a pipe. */
export class Rclone {
  readonly #args: readonly string[];
  readonly #options: ProcessOptions;

  constructor(
    stage: Stage,
    resource: BenchResource,
    ciphertext: Ciphertext,
    way: { endpoint: string; caPath: string },
  ) {
    this.#args = [`cdn:${stage.bucket}/peer/${resource.name}.cbc`, way.caPath, ciphertext.keyHex, ciphertext.ivHex];
    this.#options = {
      signal: stage.signal,
      env: {
        RCLONE_CONFIG: '/dev/null',
        RCLONE_CONFIG_CDN_TYPE: 's3',
        RCLONE_CONFIG_CDN_PROVIDER: 'Ceph',
        RCLONE_CONFIG_CDN_ENDPOINT: way.endpoint,
        RCLONE_CONFIG_CDN_ACCESS_KEY_ID: stage.s3.accessKey,
        RCLONE_CONFIG_CDN_SECRET_ACCESS_KEY: stage.s3.accessSecret,
      },
    };
  }

  /** Downloads from S3, decrypts, and writes to /dev/null. Returns the time in ms. */
  async download(): Promise<number> {
    return (await runPipeline(`${DOWNLOAD} >/dev/null`, this.#args, this.#options)).wallMs;
  }

  /** SHA-256 of what `download` yields. */
  async downloadDigest(): Promise<string> {
    return (await runPipeline(`${DOWNLOAD} | sha256sum`, this.#args, this.#options)).stdout.slice(0, 64);
  }
}

const DOWNLOAD = `${RCLONE} cat "$1" --ca-cert "$2" --log-level ERROR | ${OPENSSL} enc -d -aes-256-cbc -K "$3" -iv "$4"`;
