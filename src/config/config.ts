import { createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { parseDockerHost, type DockerHost, type DockerTls } from '../docker/docker-host.ts';
import { systemErrorCode } from '../errors.ts';
import { LOG_LEVELS, type LogLevel } from '../logger.ts';

/** All that can be set from outside, read once at the start. */
export interface Config {
  readonly host: string;
  readonly port: number;
  readonly resourceApiUrl: string;
  readonly modelCacheDir: string;
  readonly stateDir: string;
  readonly imagesPath: string;
  readonly apiVersion: string;
  readonly serviceImages: readonly string[];
  readonly dockerHost: DockerHost;
  readonly unlockParallelism: number;
  readonly resourceKey: string | undefined;
  readonly keyTemplates: { readonly hardware: string; readonly api: string };
  readonly hardwareId: string | undefined;
  readonly tokenKeys: { readonly publicKeyPem: string | undefined; readonly secret: string | undefined };
  readonly apiKeys: readonly string[];
  /** How many finished tasks are kept, and for how long. */
  readonly historyCount: number;
  readonly historyAgeMs: number;
  readonly upstreamTimeoutMs: number;
  readonly stallTimeoutMs: number;
  readonly engineTimeoutMs: number;
  readonly engineStallTimeoutMs: number;
  readonly clientStallTimeoutMs: number;
  readonly shutdownTimeoutMs: number;
  readonly logLevel: LogLevel;
  readonly logFile: string | undefined;
}

/** The part of it that has to do with the engine. */
export type EngineConfig = Pick<Config, 'dockerHost' | 'engineTimeoutMs' | 'engineStallTimeoutMs'>;

/** Every variable, with its default as text and what it is for. The README shows this table; a test compares the two. */
export const VARIABLES = {
  HOST: { fallback: '127.0.0.1', about: 'address to listen on; the image sets 0.0.0.0' },
  PORT: { fallback: '8080', about: 'port to listen on; 0 takes a free one' },
  RESOURCE_API_URL: { fallback: 'https://api.azaion.com', about: 'base URL of the Resource API' },
  MODEL_CACHE_DIR: { fallback: 'models', about: 'folder of the big parts on disk' },
  STATE_DIR: {
    fallback: 'state',
    about: 'folder of what must be known after a restart: the receipt of the unlock, tasks and schedules',
  },
  IMAGES_PATH: { fallback: '/opt/azaion/images.enc', about: 'the encrypted archive of Docker images' },
  SERVICE_IMAGES: {
    fallback: undefined,
    about: 'comma-separated repositories that are loaded when each has the tag API_VERSION; unset, the receipt tells',
  },
  API_VERSION: { fallback: 'latest', about: 'tag of the service images' },
  DOCKER_HOST: { fallback: 'unix:///var/run/docker.sock', about: 'the Docker engine; also tcp://host:port' },
  DOCKER_TLS_VERIFY: { fallback: undefined, about: 'if set, tcp:// is TLS, with the certificates of DOCKER_CERT_PATH' },
  DOCKER_CERT_PATH: { fallback: undefined, about: 'folder with ca.pem, cert.pem and key.pem' },
  UNLOCK_PARALLELISM: { fallback: '3', about: 'images that are loaded into the engine at once, 1 to 16' },
  RESOURCE_KEY: {
    fallback: undefined,
    about: 'the secret of the fleet, unless cdn.yaml names it; or RESOURCE_KEY_FILE',
  },
  KEY_TEMPLATE_HARDWARE: {
    fallback: 'azaion-loader/hardware/v1/{hardware}',
    about: 'text of which the hardware hash is made',
  },
  KEY_TEMPLATE_API: {
    fallback: 'azaion-loader/api/v1/{email}/{password}/{hardware_hash}',
    about: 'text of which the API key is made',
  },
  HARDWARE_ID: { fallback: undefined, about: 'replaces the whole hardware string' },
  JWT_PUBLIC_KEY: {
    fallback: undefined,
    about: "PEM that tokens' signatures are checked with; or JWT_PUBLIC_KEY_FILE; unset, claims are only decoded",
  },
  JWT_SECRET: { fallback: undefined, about: 'the same for tokens signed with a shared secret; or JWT_SECRET_FILE' },
  API_KEY: {
    fallback: undefined,
    about:
      'comma-separated keys, one of which every route but /health then wants as a Bearer; unset, tasks are closed; or API_KEY_FILE',
  },
  TASK_HISTORY_COUNT: { fallback: '10000', about: 'how many finished tasks are kept' },
  TASK_HISTORY_DAYS: { fallback: '90', about: 'for how many days they are kept' },
  UPSTREAM_TIMEOUT_MS: { fallback: '30000', about: 'for one call of the Resource API, in ms' },
  STALL_TIMEOUT_MS: { fallback: '30000', about: 'how long the CDN may move no byte, in ms' },
  ENGINE_TIMEOUT_MS: { fallback: '30000', about: 'for one small question to the Docker engine, in ms' },
  ENGINE_STALL_TIMEOUT_MS: {
    fallback: '120000',
    about: 'how long the Docker engine may neither take nor say anything while it loads an image, in ms',
  },
  CLIENT_STALL_TIMEOUT_MS: { fallback: '120000', about: 'how long a client may move no byte of a body, in ms' },
  SHUTDOWN_TIMEOUT_MS: { fallback: '8000', about: 'for what is under way when the Loader is told to stop, in ms' },
  LOG_LEVEL: { fallback: 'info', about: `one of ${LOG_LEVELS.join(', ')}` },
  LOG_FILE: { fallback: undefined, about: 'file that gets the log lines of stdout too' },
} as const satisfies Record<string, { fallback: string | undefined; about: string }>;

const DAY_MS = 24 * 60 * 60 * 1000;

type VariableName = keyof typeof VARIABLES;

/** Secrets, which may come from the file that `NAME_FILE` names. */
export const SECRET_VARIABLES = ['RESOURCE_KEY', 'JWT_PUBLIC_KEY', 'JWT_SECRET', 'API_KEY'] as const;
type SecretName = (typeof SECRET_VARIABLES)[number];

/** All that is wrong with the environment, at once. Its lines hold no values of secrets. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`The configuration is wrong:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`);
    this.problems = problems;
  }
}

/** Reads the configuration. An empty value counts as unset. @throws ConfigError */
export function loadConfig(env: Readonly<Record<string, string | undefined>> = process.env): Config {
  const reader = new EnvironmentReader(env);
  const config: Config = {
    host: reader.text('HOST'),
    port: reader.integer('PORT', 0, 65_535),
    resourceApiUrl: reader.baseUrl('RESOURCE_API_URL'),
    modelCacheDir: reader.text('MODEL_CACHE_DIR'),
    stateDir: reader.text('STATE_DIR'),
    imagesPath: reader.text('IMAGES_PATH'),
    apiVersion: reader.imageTag('API_VERSION'),
    serviceImages: reader.serviceImages(),
    ...readEngineConfig(reader),
    unlockParallelism: reader.integer('UNLOCK_PARALLELISM', 1, 16),
    resourceKey: reader.secret('RESOURCE_KEY'),
    keyTemplates: Object.freeze({
      hardware: reader.template('KEY_TEMPLATE_HARDWARE', ['hardware']),
      api: reader.template('KEY_TEMPLATE_API', ['email', 'password', 'hardware_hash']),
    }),
    hardwareId: reader.optionalText('HARDWARE_ID'),
    tokenKeys: reader.tokenKeys(),
    apiKeys: reader.apiKeys(),
    historyCount: reader.integer('TASK_HISTORY_COUNT', 1, 1_000_000),
    historyAgeMs: reader.integer('TASK_HISTORY_DAYS', 1, 3_650) * DAY_MS,
    upstreamTimeoutMs: reader.milliseconds('UPSTREAM_TIMEOUT_MS'),
    stallTimeoutMs: reader.milliseconds('STALL_TIMEOUT_MS'),
    clientStallTimeoutMs: reader.milliseconds('CLIENT_STALL_TIMEOUT_MS'),
    shutdownTimeoutMs: reader.milliseconds('SHUTDOWN_TIMEOUT_MS'),
    logLevel: reader.logLevel(),
    logFile: reader.optionalText('LOG_FILE'),
  };
  if (reader.problems.length > 0) throw new ConfigError(reader.problems);
  return Object.freeze(config);
}

/** Reads what a command that only uses the engine needs; other variables may be wrong. @throws ConfigError */
export function loadEngineConfig(env: Readonly<Record<string, string | undefined>> = process.env): EngineConfig {
  const reader = new EnvironmentReader(env);
  const config = readEngineConfig(reader);
  if (reader.problems.length > 0) throw new ConfigError(reader.problems);
  return Object.freeze(config);
}

function readEngineConfig(reader: EnvironmentReader): EngineConfig {
  return {
    dockerHost: reader.dockerHost(),
    engineTimeoutMs: reader.milliseconds('ENGINE_TIMEOUT_MS'),
    engineStallTimeoutMs: reader.milliseconds('ENGINE_STALL_TIMEOUT_MS'),
  };
}

/** Reads variables one by one and notes every problem, so that all can be told at once. */
class EnvironmentReader {
  readonly problems: string[] = [];
  readonly #env: Readonly<Record<string, string | undefined>>;

  constructor(env: Readonly<Record<string, string | undefined>>) {
    this.#env = env;
  }

  optionalText(name: VariableName): string | undefined {
    return this.#value(name) ?? VARIABLES[name].fallback;
  }

  text(name: VariableName): string {
    return this.optionalText(name) ?? '';
  }

  integer(name: VariableName, min: number, max: number): number {
    const text = this.text(name);
    const value = /^\d+$/.test(text) ? Number(text) : NaN;
    if (value >= min && value <= max) return value;
    this.problems.push(`${name} must be a whole number from ${min} to ${max}, not "${text}"`);
    return min;
  }

  /** Node's timers take no more than 2^31 - 1 ms. */
  milliseconds(name: VariableName): number {
    return this.integer(name, 1, 2_147_483_647);
  }

  baseUrl(name: VariableName): string {
    const text = this.text(name);
    const url = URL.canParse(text) ? new URL(text) : undefined;
    if (url === undefined || !['http:', 'https:'].includes(url.protocol)) {
      this.problems.push(`${name} must be a URL with http:// or https://`);
    } else if (/[\s?#]/.test(text) || url.username !== '' || url.password !== '') {
      this.problems.push(`${name} must have no user, password, query, fragment or white space`);
    }
    return text.replace(/\/+$/, '');
  }

  template(name: VariableName, placeholders: readonly string[]): string {
    const text = this.text(name);
    const missing = placeholders.filter((placeholder) => !text.includes(`{${placeholder}}`));
    if (missing.length > 0) {
      // Without one of them, keys of different users or machines would be the same.
      this.problems.push(`${name} lacks ${missing.map((placeholder) => `{${placeholder}}`).join(', ')}`);
    }
    return text;
  }

  logLevel(): LogLevel {
    const text = this.text('LOG_LEVEL');
    const level = LOG_LEVELS.find((known) => known === text);
    if (level === undefined) this.problems.push(`LOG_LEVEL must be one of ${LOG_LEVELS.join(', ')}, not "${text}"`);
    return level ?? 'info';
  }

  secret(name: SecretName): string | undefined {
    const fileVariable = `${name}_FILE`;
    const path = this.#value(fileVariable);
    const value = this.#value(name);
    if (path === undefined) return value;
    if (value !== undefined) {
      this.problems.push(`${name} and ${fileVariable} are both set; which of them counts?`);
      return undefined;
    }
    try {
      // Editors and `echo` end a file with a line break that belongs to no secret.
      const content = readFileSync(path, 'utf8').replace(/\r?\n$/, '');
      if (content !== '') return content;
      this.problems.push(`${fileVariable}: the file that it names is empty`);
    } catch (error) {
      const reason = systemErrorCode(error) ?? 'unknown reason';
      // Without the path: it may be the secret itself, set under the wrong name.
      this.problems.push(`${fileVariable}: the file that it names can't be read (${reason})`);
    }
    return undefined;
  }

  tokenKeys(): Config['tokenKeys'] {
    const publicKeyPem = this.secret('JWT_PUBLIC_KEY');
    const secret = this.secret('JWT_SECRET');
    if (publicKeyPem !== undefined && secret !== undefined) {
      this.problems.push('JWT_PUBLIC_KEY and JWT_SECRET are both set; tokens are signed with one of them');
    }
    if (publicKeyPem !== undefined && !isPublicKey(publicKeyPem)) {
      this.problems.push('JWT_PUBLIC_KEY must be a public key in PEM, with -----BEGIN PUBLIC KEY-----');
    }
    return Object.freeze({ publicKeyPem, secret });
  }

  apiKeys(): readonly string[] {
    const text = this.secret('API_KEY');
    if (text === undefined) return Object.freeze([]);
    const keys = splitList(text);
    // Set, but without a key, it would leave every route open.
    if (keys.length === 0 || !keys.every((key) => /^[\x21-\x7e]+$/.test(key))) {
      this.problems.push('API_KEY must be at least one key of visible ASCII characters, several separated by commas');
    }
    return Object.freeze(keys);
  }

  imageTag(name: VariableName): string {
    const text = this.text(name);
    if (!/^\w[\w.-]{0,127}$/.test(text)) this.problems.push(`${name} must be a tag of Docker images, not "${text}"`);
    return text;
  }

  serviceImages(): readonly string[] {
    const repositories = splitList(this.optionalText('SERVICE_IMAGES') ?? '');
    const wrong = repositories.filter((repository) => !REPOSITORY.test(repository));
    if (wrong.length > 0) {
      this.problems.push(
        `SERVICE_IMAGES must be repositories without tags, separated by commas, not "${wrong.join(', ')}"`,
      );
    }
    return Object.freeze(repositories);
  }

  dockerHost(): DockerHost {
    const tls = this.#dockerTls();
    try {
      return Object.freeze(parseDockerHost(this.text('DOCKER_HOST'), tls));
    } catch (error) {
      this.problems.push(`DOCKER_HOST ${error instanceof Error ? error.message : String(error)}`);
      return { kind: 'unix', socketPath: '' };
    }
  }

  /** As docker has it: any value of DOCKER_TLS_VERIFY but an empty one counts. */
  #dockerTls(): DockerTls | undefined {
    if (this.optionalText('DOCKER_TLS_VERIFY') === undefined) return undefined;
    const folder = this.optionalText('DOCKER_CERT_PATH');
    if (folder === undefined) {
      this.problems.push(
        'DOCKER_TLS_VERIFY is set, but not DOCKER_CERT_PATH: the folder with ca.pem, cert.pem and key.pem',
      );
      return undefined;
    }
    const read = (name: string) => {
      try {
        return readFileSync(path.join(folder, name), 'utf8');
      } catch (error) {
        this.problems.push(
          `DOCKER_CERT_PATH: ${name} can't be read there (${systemErrorCode(error) ?? 'unknown reason'})`,
        );
        return '';
      }
    };
    return { ca: read('ca.pem'), cert: read('cert.pem'), key: read('key.pem') };
  }

  #value(name: string): string | undefined {
    const value = this.#env[name];
    return value === '' ? undefined : value;
  }
}

/** A repository as Docker writes it, in lower case; before it may stand a registry, with a dot, a port or as localhost. */
const REPOSITORY =
  /^(?:(?:localhost|[\w-]+(?:\.[\w-]+)+|[\w-]+(?=:\d))(?::\d+)?\/)?[a-z0-9]+(?:(?:[._]|__|-+|\/)[a-z0-9]+)*$/;

function splitList(text: string): string[] {
  return text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

function isPublicKey(pem: string): boolean {
  try {
    // It would take a private key too, and derive the public one.
    return pem.includes('-----BEGIN PUBLIC KEY-----') && createPublicKey(pem).type === 'public';
  } catch {
    return false;
  }
}
