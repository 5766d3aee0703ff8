import { AWS, OPENSSL } from '../debian-tools.ts';
import { runPipeline, runProcess, type ProcessOptions } from '../run-process.ts';
import type { BenchResource, Ciphertext, Stage } from '../stage.ts';

/** What a shell script does in the Loader's place: `aws s3 cp` and `openssl enc`, joined by a pipe. */
export class AwsCli {
  readonly #url: string;
  readonly #endpoint: string;
  readonly #ciphertext: Ciphertext;
  readonly #resource: BenchResource;
  readonly #options: ProcessOptions;

  /** `way` is another one than the straight way to the S3 server, with the certificate that must be trusted there. */
  constructor(
    stage: Stage,
    resource: BenchResource,
    ciphertext: Ciphertext,
    way?: { readonly endpoint: string; readonly caPath: string },
  ) {
    this.#url = `s3://${stage.bucket}/peer/${resource.name}.cbc`;
    this.#endpoint = way?.endpoint ?? stage.s3.endpoint;
    this.#ciphertext = ciphertext;
    this.#resource = resource;
    this.#options = {
      signal: stage.signal,
      env: {
        AWS_ACCESS_KEY_ID: stage.s3.accessKey,
        AWS_SECRET_ACCESS_KEY: stage.s3.accessSecret,
        AWS_DEFAULT_REGION: 'us-east-1',
        // Without a user's settings, and without a search for a machine's role.
        AWS_CONFIG_FILE: '/dev/null',
        AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
        AWS_EC2_METADATA_DISABLED: 'true',
        AWS_PAGER: '',
        ...(way && { AWS_CA_BUNDLE: way.caPath }),
      },
    };
  }

  /** Puts the ciphertext where `download` looks for it. */
  async seed(): Promise<void> {
    const { path } = this.#ciphertext;
    await runProcess(
      AWS,
      ['s3', 'cp', '--only-show-errors', path, this.#url, '--endpoint-url', this.#endpoint],
      this.#options,
    );
  }

  /** Downloads from S3, decrypts, and writes to /dev/null. Returns the time in ms. */
  async download(): Promise<number> {
    return (await runPipeline(`${DOWNLOAD} >/dev/null`, this.#args(), this.#options)).wallMs;
  }

  /** SHA-256 of what `download` yields. */
  async downloadDigest(): Promise<string> {
    return (await runPipeline(`${DOWNLOAD} | sha256sum`, this.#args(), this.#options)).stdout.slice(0, 64);
  }

  /** Encrypts the plaintext file and uploads it to S3. Returns the time in ms. */
  async upload(): Promise<number> {
    return (await runPipeline(UPLOAD, this.#args(), this.#options)).wallMs;
  }

  #args(): string[] {
    const { keyHex, ivHex } = this.#ciphertext;
    const { plaintextPath, length } = this.#resource;
    return [this.#url, this.#endpoint, keyHex, ivHex, plaintextPath, String(length)];
  }
}

const DOWNLOAD = `${AWS} s3 cp "$1" - --endpoint-url "$2" | ${OPENSSL} enc -d -aes-256-cbc -K "$3" -iv "$4"`;
const UPLOAD =
  `${OPENSSL} enc -aes-256-cbc -K "$3" -iv "$4" -in "$5" | ` +
  `${AWS} s3 cp --only-show-errors - "$1" --endpoint-url "$2" --expected-size "$6"`;
