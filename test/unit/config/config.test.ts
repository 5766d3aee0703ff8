import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { CertificateAuthority } from '../../../lab/links/certificate-authority.ts';
import { ConfigError, loadConfig, loadEngineConfig, takeConfig } from '../../../src/config/config.ts';
import { VARIABLE_DOCS } from '../../../src/config/config-docs.ts';
import { PublicKey, SigningKey } from '../../../src/manifest/manifest-keys.ts';
import { LOG_LEVELS } from '../../../src/log/logger.ts';

const PAIR = generateKeyPairSync('ec', {
  namedCurve: 'P-256',
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
});
const PEM = PAIR.publicKey.trim();
const PRIVATE_PEM = PAIR.privateKey.trim();
const RSA_PEM = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ type: 'pkcs8', format: 'pem' });
const PUBLIC_KEY = new PublicKey(createPublicKey(PEM));

const folder = mkdtempSync(path.join(tmpdir(), 'loader-config-'));
const certificates = path.join(folder, 'certificates');
mkdirSync(certificates);
for (const name of ['ca.pem', 'cert.pem', 'key.pem']) {
  writeFileSync(path.join(certificates, name), `text of ${name}`);
}
const CA = new CertificateAuthority().certificate.trim();
const caFile = path.join(folder, 'ca-of-upstream.pem');
writeFileSync(caFile, CA);
after(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe('the configuration', () => {
  it('of an empty environment is all defaults', () => {
    assert.deepEqual(loadConfig({}), {
      host: '127.0.0.1',
      port: 8080,
      resourceApiUrl: 'https://api.azaion.com',
      ownAccount: undefined,
      proxies: { http: undefined, https: undefined, exceptions: [] },
      caCertificates: [],
      modelCacheDir: 'models',
      cacheMaxBytes: undefined,
      stateDir: 'state',
      imagesPath: '/opt/azaion/images.enc',
      apiVersion: 'latest',
      serviceImages: [],
      dockerHost: { kind: 'unix', socketPath: '/var/run/docker.sock' },
      unlockParallelism: 3,
      resourceKey: undefined,
      manifests: { signingKey: undefined, publicKeys: [], isRequired: false },
      keyTemplates: {
        hardware: 'azaion-loader/hardware/v1/{hardware}',
        api: 'azaion-loader/api/v1/{email}/{password}/{hardware_hash}',
      },
      hardwareId: undefined,
      tokenKeys: { publicKeyPem: undefined, secret: undefined },
      apiKeys: { initial: [], variable: 'API_KEY_FILE', path: undefined },
      allowedHosts: [],
      historyCount: 10_000,
      historyAgeMs: 90 * 24 * 60 * 60 * 1000,
      upstreamTimeoutMs: 30_000,
      stallTimeoutMs: 30_000,
      prefetchOutageMs: 3_600_000,
      engineTimeoutMs: 30_000,
      engineStallTimeoutMs: 120_000,
      clientStallTimeoutMs: 120_000,
      memoryBudget: 64 * 1024 * 1024,
      secondLookMs: 5_000,
      shutdownTimeoutMs: 8000,
      logLevel: 'info',

      logFormat: 'json',
      logFile: undefined,
    });
  });

  it('counts empty values as unset', () => {
    const names = ['HOST', 'PORT', 'RESOURCE_API_URL', 'RESOURCE_KEY', 'RESOURCE_KEY_FILE', 'HARDWARE_ID', 'API_KEY'];
    assert.deepEqual(loadConfig(Object.fromEntries(names.map((name) => [name, '']))), loadConfig({}));
  });

  it('takes every variable', () => {
    const config = loadConfig({
      HOST: '0.0.0.0',
      PORT: '0',
      RESOURCE_API_URL: 'http://127.0.0.1:9/base/',
      LOGIN_EMAIL: 'device@example.com',
      LOGIN_PASSWORD: 'own',
      HTTP_PROXY: 'http://proxy:3128',
      HTTPS_PROXY: 'https://me:pass@proxy',
      NO_PROXY: 'internal.example.com',
      UPSTREAM_CA_FILE: caFile,
      MODEL_CACHE_DIR: '/var/models',
      CACHE_MAX_BYTES: '5000000000',
      STATE_DIR: '/var/state',
      IMAGES_PATH: '/srv/images.enc',
      SERVICE_IMAGES: 'azaion/api, registry.example.com:5000/azaion/worker_2 ,nginx,',
      API_VERSION: '1.2.3-rc_4',
      DOCKER_HOST: 'tcp://engine.local',
      DOCKER_TLS_VERIFY: '1',
      DOCKER_CERT_PATH: certificates,
      UNLOCK_PARALLELISM: '16',
      RESOURCE_KEY: 'fleet',
      MANIFEST_SIGNING_KEY: PRIVATE_PEM,
      MANIFEST_PUBLIC_KEYS: `${PEM}\n${PEM}`,
      MANIFEST_REQUIRED: 'true',
      KEY_TEMPLATE_HARDWARE: '<{hardware}>',
      KEY_TEMPLATE_API: '{email}{password}{hardware_hash}',
      HARDWARE_ID: 'device 7',
      JWT_SECRET: 'shared',
      API_KEY: ' one, two ,three,',
      ALLOWED_HOSTS: 'Loader.example.com, .Fleet.example ,device-7,',
      TASK_HISTORY_COUNT: '1000000',
      TASK_HISTORY_DAYS: '3650',
      UPSTREAM_TIMEOUT_MS: '1',
      STALL_TIMEOUT_MS: '2',
      PREFETCH_OUTAGE_MS: '3600001',
      ENGINE_TIMEOUT_MS: '4',
      ENGINE_STALL_TIMEOUT_MS: '5',
      CLIENT_STALL_TIMEOUT_MS: '3',
      MEMORY_BUDGET_MB: '80',
      UPLOAD_SECOND_LOOK_MS: '250',
      SHUTDOWN_TIMEOUT_MS: '2147483647',
      LOG_LEVEL: 'trace',
      LOG_FORMAT: 'pretty',
      LOG_FILE: '/var/log/loader.log',
    });
    assert.deepEqual(config, {
      host: '0.0.0.0',
      port: 0,
      resourceApiUrl: 'http://127.0.0.1:9/base',
      ownAccount: {
        email: 'device@example.com',
        password: { initial: 'own', variable: 'LOGIN_PASSWORD_FILE', path: undefined },
      },
      proxies: {
        http: { isTls: false, hostname: 'proxy', port: 3128, authorization: undefined },
        https: { isTls: true, hostname: 'proxy', port: 443, authorization: 'Basic bWU6cGFzcw==' },
        exceptions: ['internal.example.com'],
      },
      caCertificates: [CA],
      modelCacheDir: '/var/models',
      cacheMaxBytes: 5_000_000_000,
      stateDir: '/var/state',
      imagesPath: '/srv/images.enc',
      apiVersion: '1.2.3-rc_4',
      serviceImages: ['azaion/api', 'registry.example.com:5000/azaion/worker_2', 'nginx'],
      dockerHost: {
        kind: 'tcp',
        host: 'engine.local:2376',
        tls: { ca: 'text of ca.pem', cert: 'text of cert.pem', key: 'text of key.pem' },
      },
      unlockParallelism: 16,
      resourceKey: 'fleet',
      manifests: {
        signingKey: new SigningKey(createPrivateKey(PRIVATE_PEM)),
        publicKeys: [PUBLIC_KEY, PUBLIC_KEY],
        isRequired: true,
      },
      keyTemplates: { hardware: '<{hardware}>', api: '{email}{password}{hardware_hash}' },
      hardwareId: 'device 7',
      tokenKeys: { publicKeyPem: undefined, secret: 'shared' },
      apiKeys: { initial: ['one', 'two', 'three'], variable: 'API_KEY_FILE', path: undefined },
      allowedHosts: ['loader.example.com', '.fleet.example', 'device-7'],
      historyCount: 1_000_000,
      historyAgeMs: 315_360_000_000,
      upstreamTimeoutMs: 1,
      stallTimeoutMs: 2,
      prefetchOutageMs: 3_600_001,
      engineTimeoutMs: 4,
      engineStallTimeoutMs: 5,
      clientStallTimeoutMs: 3,
      memoryBudget: 80 * 1024 * 1024,
      secondLookMs: 250,
      shutdownTimeoutMs: 2_147_483_647,
      logLevel: 'trace',

      logFormat: 'pretty',
      logFile: '/var/log/loader.log',
    });
  });

  it('takes a public key in PEM', () => {
    assert.equal(loadConfig({ JWT_PUBLIC_KEY: PEM }).tokenKeys.publicKeyPem, PEM);
  });

  it('takes every level of the log', () => {
    for (const level of LOG_LEVELS) assert.equal(loadConfig({ LOG_LEVEL: level }).logLevel, level);
  });

  it('cannot be changed', () => {
    assert.ok(Object.isFrozen(loadConfig({})));
  });

  it('is refused with all its problems at once, one line for each', () => {
    const problems = problemsOf({
      PORT: 'x',
      CACHE_MAX_BYTES: '0',
      RESOURCE_API_URL: 'x',
      KEY_TEMPLATE_HARDWARE: 'x',
      KEY_TEMPLATE_API: '{email}',
      UPSTREAM_TIMEOUT_MS: '0',
      STALL_TIMEOUT_MS: '0',
      CLIENT_STALL_TIMEOUT_MS: '0',
      ENGINE_TIMEOUT_MS: '0',
      ENGINE_STALL_TIMEOUT_MS: '0',
      SHUTDOWN_TIMEOUT_MS: '0',
      API_VERSION: '.x',
      SERVICE_IMAGES: 'azaion/api:1',
      DOCKER_HOST: 'npipe:////./pipe/docker',
      DOCKER_TLS_VERIFY: '1',
      UNLOCK_PARALLELISM: '0',
      TASK_HISTORY_COUNT: '0',
      TASK_HISTORY_DAYS: '3651',
      LOG_LEVEL: 'loud',
      LOG_FORMAT: 'html',
      API_KEY: 'a b',
      ALLOWED_HOSTS: 'http://loader',
      RESOURCE_KEY_FILE: path.join(folder, 'absent'),
      JWT_PUBLIC_KEY: 'x',
    });
    for (const name of [
      'PORT',
      'CACHE_MAX_BYTES',
      'RESOURCE_API_URL',
      'KEY_TEMPLATE_HARDWARE',
      'KEY_TEMPLATE_API',
      'UPSTREAM_TIMEOUT_MS',
      'STALL_TIMEOUT_MS',
      'CLIENT_STALL_TIMEOUT_MS',
      'ENGINE_TIMEOUT_MS',
      'ENGINE_STALL_TIMEOUT_MS',
      'SHUTDOWN_TIMEOUT_MS',
      'API_VERSION',
      'SERVICE_IMAGES',
      'DOCKER_HOST',
      'DOCKER_TLS_VERIFY',
      'UNLOCK_PARALLELISM',
      'TASK_HISTORY_COUNT',
      'TASK_HISTORY_DAYS',
      'LOG_LEVEL',
      'LOG_FORMAT',
      'API_KEY',
      'ALLOWED_HOSTS',
      'RESOURCE_KEY_FILE',
      'JWT_PUBLIC_KEY',
    ]) {
      assert.equal(problems.filter((problem) => new RegExp(`^${name}\\b`).test(problem)).length, 1, name);
    }
    assert.equal(problems.length, 24);
  });

  it('has its problems in the message of the error', () => {
    assert.throws(() => loadConfig({ PORT: 'x', LOG_LEVEL: 'loud' }), /PORT[^]*LOG_LEVEL/);
  });
});

describe('a wrong value', () => {
  const INVALID: Readonly<Record<string, readonly string[]>> = {
    PORT: ['-1', '65536', '80.5', '8e3', '0x50', ' 80', '80 ', 'http', 'NaN', '9'.repeat(400)],
    RESOURCE_API_URL: [
      'api.azaion.com',
      '//api.azaion.com',
      'ftp://api.azaion.com',
      'https://',
      'https://user@api.azaion.com',
      'https://user:pass@api.azaion.com',
      'https://api.azaion.com?tenant=1',
      'https://api.azaion.com#top',
    ],
    KEY_TEMPLATE_HARDWARE: ['hardware', '{Hardware}', '{ hardware }'],
    KEY_TEMPLATE_API: ['{email}{password}', '{email}{hardware_hash}', '{password}{hardware_hash}', '{hardware}'],
    UPSTREAM_TIMEOUT_MS: ['0', '-1', '1.5', '30s', '2147483648'],
    STALL_TIMEOUT_MS: ['0', '-1', '1.5', '30s', '2147483648'],
    CLIENT_STALL_TIMEOUT_MS: ['0', '-1', '1.5', '30s', '2147483648'],
    SHUTDOWN_TIMEOUT_MS: ['0', '-1', '1.5', '30s', '2147483648'],
    ENGINE_TIMEOUT_MS: ['0', '1.5', '2147483648'],
    ENGINE_STALL_TIMEOUT_MS: ['0', '1.5', '2147483648'],
    UNLOCK_PARALLELISM: ['0', '17', '1.5', 'all'],
    TASK_HISTORY_COUNT: ['0', '1000001', '1.5', 'all'],
    TASK_HISTORY_DAYS: ['0', '3651', '1.5', 'always'],
    API_VERSION: ['.1', '-1', 'a b', 'a/b', 'a'.repeat(129)],
    HTTP_PROXY: ['socks5://proxy:1080', 'http://', 'http://proxy/path', 'proxy:0x1'],
    HTTPS_PROXY: ['socks5://proxy:1080', 'http://proxy:99999'],
    ALLOWED_HOSTS: ['loader:8080', 'http://loader', '*', '*.example.com', 'a..b', 'a b', '[::1]', 'loader/'],
    SERVICE_IMAGES: ['azaion/api:1', 'Azaion/api', 'azaion//api/', 'a b'],
    DOCKER_HOST: [
      'unix://relative.sock',
      '/var/run/docker.sock',
      'npipe:////./pipe/docker_engine',
      'ssh://device',
      'tcp://',
      'tcp://host:port',
      'tcp://host:1/path',
      'tcp://user@host:1',
      'fd://',
    ],
    DOCKER_TLS_VERIFY: ['1'],
    LOG_LEVEL: ['INFO', 'verbose', 'info ', 'toString'],
    API_KEY: ['a b', 'one,t\two', 'one,two\nthree'],
    JWT_PUBLIC_KEY: ['text', '-----BEGIN CERTIFICATE-----', '-----BEGIN RSA PUBLIC KEY-----'],
  };
  for (const [name, values] of Object.entries(INVALID)) {
    for (const value of values) {
      it(`of ${name} is refused: ${JSON.stringify(value.slice(0, 40))}`, () => {
        const problems = problemsOf({ [name]: value });
        assert.equal(problems.length, 1, problems.join());
        assert.match(problems[0] ?? '', new RegExp(`^${name}\\b`));
      });
    }
  }

  it('of DOCKER_CERT_PATH is told with each file that it lacks', () => {
    const problems = problemsOf({ DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: path.join(folder, 'absent') });
    assert.deepEqual(
      problems,
      ['ca.pem', 'cert.pem', 'key.pem'].map(
        (name) => `DOCKER_CERT_PATH: the file ${path.join(folder, 'absent', name)} can't be read (ENOENT)`,
      ),
    );
  });

  it('of KEY_TEMPLATE_API is told with the placeholders that it lacks', () => {
    assert.match(problemsOf({ KEY_TEMPLATE_API: '{password}' }).join(), /lacks \{email\}, \{hardware_hash\}$/);
  });

  for (const [what, variables, expected] of [
    ['no key', { MANIFEST_SIGNING_KEY: 'x' }, /^MANIFEST_SIGNING_KEY must be a private key in PEM/],
    ['a public key', { MANIFEST_SIGNING_KEY: PEM }, /^MANIFEST_SIGNING_KEY must be/],
    ['an RSA key', { MANIFEST_SIGNING_KEY: RSA_PEM }, /^MANIFEST_SIGNING_KEY must be/],
    ['a key that is not there', { MANIFEST_SIGNING_KEY_FILE: '/nowhere' }, /^MANIFEST_SIGNING_KEY_FILE/],
  ] as const) {
    it(`is ${what} for the signatures of manifests, and the text is not told`, () => {
      const [problem = '', ...others] = problemsOf(variables);
      assert.match(problem, expected);
      assert.deepEqual(others, []);
      assert.ok(!problem.includes('BEGIN PRIVATE'));
    });
  }

  for (const [what, text] of [
    ['no key', 'x'],
    ['a private key', PRIVATE_PEM],
    ['a key that was cut', `${PEM}\n${PEM.slice(0, 60)}`],
    ['an RSA key', createPublicKey(RSA_PEM).export({ type: 'spki', format: 'pem' })],
  ] as const) {
    it(`is ${what} among those that manifests are checked with`, () => {
      assert.match(
        problemsOf({ MANIFEST_PUBLIC_KEYS: text }).join(),
        /^MANIFEST_PUBLIC_KEYS must be public keys in PEM/,
      );
    });
  }

  it('is a public key beside a shared secret', () => {
    assert.match(problemsOf({ JWT_PUBLIC_KEY: PEM, JWT_SECRET: 'x' }).join(), /JWT_PUBLIC_KEY and JWT_SECRET/);
  });
});

describe('a secret from a file', () => {
  const VALUES = {
    LOGIN_PASSWORD: 'own',
    RESOURCE_KEY: 'fleet',
    MANIFEST_SIGNING_KEY: PRIVATE_PEM,
    MANIFEST_PUBLIC_KEYS: PEM,
    JWT_PUBLIC_KEY: PEM,
    JWT_SECRET: 'shared',
    API_KEY: 'one,two',
  } as const;
  /** What must be set beside a secret. */
  const beside = (name: string) => (name === 'LOGIN_PASSWORD' ? { LOGIN_EMAIL: 'device@example.com' } : {});
  /** A configuration, but for the paths of files whose secrets may be rotated. */
  const withoutPaths = (config: object): unknown =>
    JSON.parse(JSON.stringify(config, (key, value: unknown) => (key === 'path' ? undefined : value)));

  it('is in the test for every variable that has this form', () => {
    const names = VARIABLE_DOCS.filter((variable) => variable.hasFileForm).map((variable) => variable.name);
    assert.deepEqual(names, Object.keys(VALUES));
  });

  for (const [name, value] of Object.entries(VALUES)) {
    it(`is the same as ${name} itself`, () => {
      const file = writeSecret(name, value);
      assert.deepEqual(
        withoutPaths(loadConfig({ ...beside(name), [`${name}_FILE`]: file })),
        withoutPaths(loadConfig({ ...beside(name), [name]: value })),
      );
    });

    it(`must not stand beside ${name}`, () => {
      const file = writeSecret(name, value);
      const problems = problemsOf({ ...beside(name), [`${name}_FILE`]: file, [name]: value });
      assert.deepEqual(problems, [`${name} and ${name}_FILE are both set: set only one of them`]);
    });

    it(`must be there for ${name}_FILE`, () => {
      const file = path.join(folder, 'absent');
      assert.deepEqual(problemsOf({ ...beside(name), [`${name}_FILE`]: file }), [
        `${name}_FILE: the file ${file} can't be read (ENOENT)`,
      ]);
    });

    it(`must be a file for ${name}_FILE`, () => {
      assert.match(
        problemsOf({ ...beside(name), [`${name}_FILE`]: folder }).join(),
        new RegExp(`^${name}_FILE: .*\\(EISDIR\\)$`),
      );
    });

    for (const content of ['', '\n', '\r\n']) {
      it(`must not be empty for ${name}_FILE: ${JSON.stringify(content)}`, () => {
        const problems = problemsOf({ ...beside(name), [`${name}_FILE`]: writeSecret('empty', content) });
        assert.match(problems.join(), new RegExp(`^${name}_FILE: .* is empty$`));
      });
    }
  }

  for (const [content, secret] of [
    ['fleet\n', 'fleet'],
    ['fleet\r\n', 'fleet'],
    ['fleet\n\n', 'fleet\n'],
    [' fleet ', ' fleet '],
    ['two\nlines', 'two\nlines'],
    ['schlüssel\n', 'schlüssel'],
  ] as const) {
    it(`loses no more than one line break at its end: ${JSON.stringify(content)}`, () => {
      assert.equal(loadConfig({ RESOURCE_KEY_FILE: writeSecret('breaks', content) }).resourceKey, secret);
    });
  }
});

describe('the problems', () => {
  it('hold no value of a secret', () => {
    const file = writeSecret('spaced', 'hush with space');
    const environments: readonly Readonly<Record<string, string>>[] = [
      { API_KEY: 'hush with space' },
      { API_KEY_FILE: file },
      { API_KEY: 'hush', API_KEY_FILE: file },
      { JWT_PUBLIC_KEY: 'hush' },
      { JWT_PUBLIC_KEY_FILE: writeSecret('pem', 'hush') },
      { JWT_PUBLIC_KEY: `${PEM} hush`, JWT_SECRET: 'hush' },
      { RESOURCE_KEY: 'hush', RESOURCE_KEY_FILE: writeSecret('key', 'hush') },
      { RESOURCE_API_URL: 'https://user:hush@api.azaion.com' },
      { RESOURCE_API_URL: 'https://api.azaion.com/?token=hush' },
      { RESOURCE_API_URL: 'user:hush@api.azaion.com' },
      { RESOURCE_KEY: 'hush', PORT: 'x' },
    ];
    for (const environment of environments) {
      assert.throws(
        () => loadConfig(environment),
        (error) => {
          assert.ok(error instanceof ConfigError);
          assert.doesNotMatch(`${error.problems.join()} ${error.message} ${error.stack ?? ''}`, /hush/);
          return true;
        },
      );
    }
  });
});

function problemsOf(env: Readonly<Record<string, string>>): readonly string[] {
  try {
    loadConfig(env);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return assert.fail('the configuration was taken');
}

function writeSecret(name: string, content: string): string {
  const file = path.join(folder, `${name}.txt`);
  writeFileSync(file, content);
  return file;
}

describe("the Loader's own account", () => {
  it('needs email and password', () => {
    assert.match(
      problemsOf({ LOGIN_EMAIL: 'a@b.example' }).join(),
      /^LOGIN_EMAIL is set, but no password: set LOGIN_PASSWORD_FILE/,
    );
    assert.match(problemsOf({ LOGIN_PASSWORD: 'own' }).join(), /^LOGIN_PASSWORD is set, but LOGIN_EMAIL is not/);
  });

  it('knows the file of its password, which may be rotated', () => {
    const file = writeSecret('LOGIN_PASSWORD', 'own');
    const { ownAccount } = loadConfig({ LOGIN_EMAIL: 'a@b.example', LOGIN_PASSWORD_FILE: file });
    assert.deepEqual(ownAccount?.password, { initial: 'own', variable: 'LOGIN_PASSWORD_FILE', path: file });
  });
});

describe('a value that is present and wrong', () => {
  const wrong: Record<string, readonly string[]> = {
    API_KEY: [',', ' ', ' , ', 'schlüssel', 'two words'],
    RESOURCE_API_URL: ['https://api.azaion.com ', 'https://api.azaion.com/base?', 'https://user:pw@api.azaion.com'],
    JWT_PUBLIC_KEY: ['-----BEGIN PUBLIC KEY-----\nrubbish\n-----END PUBLIC KEY-----'],
  };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values) {
      it(`stops the start: ${name}=${JSON.stringify(value)}`, () => {
        assert.throws(() => loadConfig({ [name]: value }), new RegExp(`- ${name}`));
      });
    }
  }
});

it('the configuration is frozen in depth', () => {
  const config = loadConfig({ API_KEY: 'a' });
  assert.ok([config, config.apiKeys, config.keyTemplates, config.tokenKeys].every((part) => Object.isFrozen(part)));
});

describe('the proxies', () => {
  const proxy = { isTls: false, hostname: 'proxy', port: 3128, authorization: undefined };

  it('may be named in lower case, which counts if both are set and it is not empty', () => {
    const { proxies } = loadConfig({
      HTTP_PROXY: 'http://proxy:3128',
      http_proxy: '',
      HTTPS_PROXY: 'http://other:1',
      https_proxy: 'proxy:3128',
      no_proxy: 'a.example.com, .b.example.com\t10.0.0.0/8',
    });
    assert.deepEqual(proxies.http, proxy);
    assert.deepEqual(proxies.https, proxy);
    assert.deepEqual(proxies.exceptions, ['a.example.com', '.b.example.com', '10.0.0.0/8']);
  });

  it('have no exceptions where NO_PROXY is empty', () => {
    assert.deepEqual(loadConfig({ HTTPS_PROXY: 'proxy:3128', NO_PROXY: '', no_proxy: ' , ' }).proxies, {
      http: undefined,
      https: proxy,
      exceptions: [],
    });
  });

  it('have a password that is a secret in every form, also where the URL is wrong', () => {
    const { secrets } = takeConfig({ HTTPS_PROXY: 'http://me:p%40ss-hush@proxy:3128' });
    for (const form of ['p%40ss-hush', 'p@ss-hush', Buffer.from('me:p@ss-hush').toString('base64')]) {
      assert.ok(secrets.includes(form), form);
    }
    assert.throws(
      () => loadConfig({ HTTPS_PROXY: 'socks5://me:p%40ss-hush@proxy', http_proxy: 'http://me:p%40ss-hush@pro xy' }),
      (error) => error instanceof ConfigError && error.problems.length === 2 && !error.message.includes('hush'),
    );
  });

  it('leave the environment in both cases', () => {
    const variables = { HTTP_PROXY: 'proxy:1', http_proxy: 'proxy:1', no_proxy: 'x', ftp_proxy: 'http://me:pw@x' };
    assert.deepEqual(takeConfig(variables).warnings, []);
    assert.deepEqual(variables, { ftp_proxy: 'http://me:pw@x' });
  });
});

describe('a file of CAs', () => {
  const write = (name: string, content: string) => {
    const file = path.join(folder, name);
    writeFileSync(file, content);
    return { UPSTREAM_CA_FILE: file };
  };

  it('may hold several, with text between them', () => {
    const [one, two] = [new CertificateAuthority('one').certificate, new CertificateAuthority('two').certificate];
    const { caCertificates } = loadConfig(write('two.pem', `# one\n${one}\n# two\r\n${two}`));
    assert.deepEqual(caCertificates, [one.trim(), two.trim()]);
  });

  for (const [what, variables, problem] of [
    [
      'is not there',
      { UPSTREAM_CA_FILE: '/no/ca.pem' },
      /UPSTREAM_CA_FILE: the file \/no\/ca\.pem can't be read \(ENOENT\)/,
    ],
    ['holds none', write('none.pem', PEM), /UPSTREAM_CA_FILE: the file \S+none\.pem must hold certificates in PEM/],
    ['is empty', write('empty.pem', ''), /must hold certificates in PEM/],
    [
      'holds one that is broken',
      write('broken.pem', '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----'),
      /must hold certificates in PEM/,
    ],
  ] as const) {
    it(`stops the start when it ${what}`, () => {
      assert.throws(() => loadConfig(variables), problem);
    });
  }
});

describe('taking the configuration out of an environment', () => {
  const file = writeSecret('taken', 'of a file');

  it('gives the same configuration as reading it', () => {
    const variables = { PORT: '9', API_KEY: 'a,b', RESOURCE_KEY_FILE: file };
    const expected = loadConfig(variables);
    assert.deepEqual(takeConfig({ ...variables }).config, expected);
  });

  it('leaves no variable of the Loader there, and none that looks like one, but all others', () => {
    const variables = { PATH: '/bin', PORT: '9', API_KEY: 'a', RESOURCE_KEY_FILE: file, API_KEYS: 'b', LOADER_X: 'c' };
    takeConfig(variables);
    assert.deepEqual(variables, { PATH: '/bin' });
  });

  it('tells the secrets, each key of a list by itself', () => {
    const { secrets } = takeConfig({
      API_KEY: 'one, two',
      RESOURCE_KEY_FILE: file,
      JWT_SECRET: 'shared',
      DOCKER_HOST: 'tcp://engine.local',
      DOCKER_TLS_VERIFY: '1',
      DOCKER_CERT_PATH: certificates,
    });
    assert.deepEqual([...secrets].sort(), ['of a file', 'one', 'shared', 'text of key.pem', 'two']);
  });

  it('warns of variables that look like those of the Loader, without their values', () => {
    const { warnings } = takeConfig({ API_KEYS: 'hush', RESOURCE_URL: 'hush' });
    assert.equal(warnings.length, 2);
    assert.doesNotMatch(warnings.join(), /hush/);
  });

  it('leaves the environment as it is when the configuration is wrong', () => {
    const variables = { PORT: 'x', API_KEY: 'a' };
    assert.throws(() => takeConfig(variables), ConfigError);
    assert.deepEqual(variables, { PORT: 'x', API_KEY: 'a' });
  });
});

it('reading the configuration changes no environment', () => {
  const variables = Object.freeze({ API_KEY: 'a', API_KEYS: 'b' });
  loadConfig(variables);
  loadEngineConfig(variables);
});

describe('the configuration of the engine alone', () => {
  it('is the same part of the whole configuration', () => {
    const variables = { DOCKER_HOST: 'tcp://engine.local', ENGINE_TIMEOUT_MS: '7', ENGINE_STALL_TIMEOUT_MS: '8' };
    const { dockerHost, engineTimeoutMs, engineStallTimeoutMs } = loadConfig(variables);
    assert.deepEqual(loadEngineConfig(variables), { dockerHost, engineTimeoutMs, engineStallTimeoutMs });
  });

  it('can be read where other variables are wrong', () => {
    assert.equal(loadEngineConfig({ PORT: 'x' }).engineTimeoutMs, 30_000);
    assert.throws(() => loadEngineConfig({ PORT: 'x', ENGINE_TIMEOUT_MS: 'x' }), {
      problems: ['ENGINE_TIMEOUT_MS must be a whole number from 1 to 2147483647, not "x"'],
    });
  });
});
