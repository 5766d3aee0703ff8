import { LOG_FORMATS, LOG_LEVELS } from '../log/logger.ts';
import { certificateFile } from './certificate-file.ts';
import {
  atMostOne,
  baseUrl,
  days,
  dockerHost,
  flag,
  group,
  hostNames,
  imageTag,
  integer,
  mebibytes,
  milliseconds,
  oneOf,
  optionalInteger,
  optionalText,
  publicKey,
  repositories,
  template,
  text,
} from './kinds.ts';
import { publicKeys, signingKey } from './manifest-keys.ts';
import { ownAccount, secret, secretList } from './secrets.ts';
import { proxyExceptions, proxyServer } from './proxy-server.ts';

/** The templates of the keys, unless the environment names others (docs/protocol.md section 1). */
export const DEFAULT_KEY_TEMPLATES = {
  hardware: 'azaion-loader/hardware/v1/{hardware}',
  api: 'azaion-loader/api/v1/{email}/{password}/{hardware_hash}',
} as const;

/** The rows for a command that only talks to the Docker engine. */
export const ENGINE_VARIABLES = {
  dockerHost: dockerHost({
    host: text('DOCKER_HOST', {
      fallback: 'unix:///var/run/docker.sock',
      about: 'the Docker engine: unix:///path or tcp://host:port',
    }),
    tlsVerify: optionalText('DOCKER_TLS_VERIFY', {
      about: 'if set, tcp:// is TLS, with the certificates of DOCKER_CERT_PATH',
    }),
    certPath: optionalText('DOCKER_CERT_PATH', { about: 'folder with ca.pem, cert.pem and key.pem' }),
  }),
  engineTimeoutMs: milliseconds('ENGINE_TIMEOUT_MS', {
    fallback: 30_000,
    about: 'the longest time for one small request to the Docker engine, in ms',
  }),
  engineStallTimeoutMs: milliseconds('ENGINE_STALL_TIMEOUT_MS', {
    fallback: 120_000,
    about: 'how long the Docker engine may go without taking or sending a byte while it loads an image, in ms',
  }),
} as const;

/** The rows for a command that only uses the state. */
export const STATE_VARIABLES = {
  stateDir: text('STATE_DIR', {
    fallback: 'state',
    about:
      'folder of what must survive a restart: tasks, schedules, unfinished uploads, accepted revisions, the receipt of the unlock, the accepted hardware string',
  }),
} as const;

/**
 * The whole configuration: the name of each field beside the name of its variable. The type `Config`, the table in
 * docs/configuration.md, .env.example and `--help` all come from these rows.
 */
export const VARIABLES = {
  host: text('HOST', { fallback: '127.0.0.1', about: 'the address to listen on; the image sets 0.0.0.0' }),
  port: integer('PORT', { min: 0, max: 65_535, fallback: 8080, about: 'the port to listen on; 0 takes a free one' }),
  resourceApiUrl: baseUrl('RESOURCE_API_URL', {
    fallback: 'https://api.azaion.com',
    about: 'base URL of the Resource API',
  }),
  ownAccount: ownAccount({
    email: optionalText('LOGIN_EMAIL', {
      about: 'the account that the Loader logs in with by itself: at the start, and again until it succeeds',
    }),
    password: secret('LOGIN_PASSWORD', { about: 'its password; a file of it is read again when it changes' }),
  }),
  proxies: group({
    http: proxyServer('HTTP_PROXY', {
      about: 'the proxy for http:// of Resource API and CDN: http://user:password@host:port',
    }),
    https: proxyServer('HTTPS_PROXY', { about: 'the same for https://' }),
    exceptions: proxyExceptions('NO_PROXY', {
      about: 'comma-separated names, addresses and ranges that are reached without a proxy, as for curl',
    }),
  }),
  caCertificates: certificateFile('UPSTREAM_CA_FILE', {
    about: 'PEM file of CAs that are trusted for Resource API and CDN, beside the public ones',
  }),
  modelCacheDir: text('MODEL_CACHE_DIR', { fallback: 'models', about: 'folder of the cache of big parts' }),
  cacheMaxBytes: optionalInteger('CACHE_MAX_BYTES', {
    min: 1,
    max: Number.MAX_SAFE_INTEGER,
    about:
      'bytes that the cache may hold: what was loaded longest ago goes before something is fetched; unset, no limit',
  }),
  ...STATE_VARIABLES,
  imagesPath: text('IMAGES_PATH', {
    fallback: '/opt/azaion/images.enc',
    about: 'the encrypted archive of Docker images',
  }),
  serviceImages: repositories('SERVICE_IMAGES', {
    about:
      'comma-separated repositories: where there is no archive, the unlock is done when each has the tag API_VERSION',
  }),
  apiVersion: imageTag('API_VERSION', { fallback: 'latest', about: 'tag of the service images' }),
  ...ENGINE_VARIABLES,
  unlockParallelism: integer('UNLOCK_PARALLELISM', {
    min: 1,
    max: 16,
    fallback: 3,
    about: 'how many images are loaded into the engine at once, 1 to 16',
  }),
  resourceKey: secret('RESOURCE_KEY', { about: 'the secret of the fleet, unless cdn.yaml names it' }),
  manifests: group({
    signingKey: signingKey('MANIFEST_SIGNING_KEY', {
      about: 'PEM of the private key that signs the manifests of uploads, Ed25519 or ECDSA P-256',
    }),
    publicKeys: publicKeys('MANIFEST_PUBLIC_KEYS', {
      about: 'PEM of one or more public keys: only resources whose manifest one of them signed are loaded',
    }),
    isRequired: flag('MANIFEST_REQUIRED', {
      about: 'true refuses resources without a manifest',
    }),
  }),
  keyTemplates: group({
    hardware: template('KEY_TEMPLATE_HARDWARE', ['hardware'], {
      fallback: DEFAULT_KEY_TEMPLATES.hardware,
      about: 'the text that the hardware hash is made of',
    }),
    api: template('KEY_TEMPLATE_API', ['email', 'password', 'hardware_hash'], {
      fallback: DEFAULT_KEY_TEMPLATES.api,
      about: 'the text that the API key of the envelopes is made of',
    }),
  }),
  hardwareId: optionalText('HARDWARE_ID', { about: 'replaces the whole hardware string' }),
  tokenKeys: atMostOne(
    {
      publicKeyPem: publicKey('JWT_PUBLIC_KEY', {
        about: 'PEM of the key that the signatures of tokens are checked with; if unset, claims are only decoded',
      }),
      secret: secret('JWT_SECRET', { about: 'the same for tokens that are signed with a shared secret' }),
    },
    'tokens are signed with one of them',
  ),
  apiKeys: secretList('API_KEY', {
    about:
      'comma-separated keys: every route but /health then requires one as a Bearer; if unset, the routes of tasks are closed',
  }),
  allowedHosts: hostNames('ALLOWED_HOSTS', {
    about:
      'comma-separated names under which browsers reach a Loader without API_KEY; addresses, names without a dot, .local and .internal need no entry',
  }),
  historyCount: integer('TASK_HISTORY_COUNT', {
    min: 1,
    max: 1_000_000,
    fallback: 10_000,
    about: 'how many finished tasks are kept',
  }),
  historyAgeMs: days('TASK_HISTORY_DAYS', {
    min: 1,
    max: 3_650,
    fallback: 90,
    about: 'for how many days finished tasks are kept',
  }),
  upstreamTimeoutMs: milliseconds('UPSTREAM_TIMEOUT_MS', {
    fallback: 30_000,
    about: 'the longest time for one call of the Resource API, in ms',
  }),
  stallTimeoutMs: milliseconds('STALL_TIMEOUT_MS', {
    fallback: 30_000,
    about: 'how long a load or an upload waits for a Resource API or CDN that moves no byte or fails, in ms',
  }),
  prefetchOutageMs: milliseconds('PREFETCH_OUTAGE_MS', {
    fallback: 3_600_000,
    about: 'how long a prefetch waits for a Resource API or CDN that fails, in ms',
  }),
  clientStallTimeoutMs: milliseconds('CLIENT_STALL_TIMEOUT_MS', {
    fallback: 120_000,
    about: 'how long a client may go without moving a byte of a body, in ms',
  }),
  secondLookMs: integer('UPLOAD_SECOND_LOOK_MS', {
    min: 0,
    max: 600_000,
    fallback: 5_000,
    about: 'how long after an upload both of its parts are checked once more, in ms',
  }),
  memoryBudget: mebibytes('MEMORY_BUDGET_MB', {
    min: 16,
    max: 65_536,
    fallback: 64,
    about: 'MiB that all uploads and transfers from the CDN hold together; more of them wait for their turn',
  }),
  shutdownTimeoutMs: milliseconds('SHUTDOWN_TIMEOUT_MS', {
    fallback: 8_000,
    about: 'how long work under way may go on when the Loader is told to stop, in ms',
  }),
  logLevel: oneOf('LOG_LEVEL', LOG_LEVELS, { fallback: 'info', about: `one of ${LOG_LEVELS.join(', ')}` }),
  logFormat: oneOf('LOG_FORMAT', LOG_FORMATS, {
    fallback: 'json',
    about: 'json for programs, one object a line, or pretty for people',
  }),
  logFile: optionalText('LOG_FILE', {
    about: 'a regular file that gets the log lines too, besides stdout; SIGHUP opens it anew',
  }),
} as const;
