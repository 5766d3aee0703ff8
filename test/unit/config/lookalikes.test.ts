import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { VARIABLE_NAMES } from '../../../src/config/config.ts';
import { findLookalikes } from '../../../src/config/lookalikes.ts';

function warningsFor(...names: readonly string[]): string[] {
  const variables = Object.fromEntries(names.map((name) => [name, 'hush']));
  return findLookalikes(variables, VARIABLE_NAMES).map(({ warning }) => warning);
}

describe('a variable that looks like one of the Loader', () => {
  const MEANT: readonly (readonly [string, string])[] = [
    ['RESOURCE_URL', 'RESOURCE_API_URL'],
    ['RESOURCE_API_URI', 'RESOURCE_API_URL'],
    ['MODEL_CACHE', 'MODEL_CACHE_DIR'],
    ['MODELS_CACHE_DIR', 'MODEL_CACHE_DIR'],
    ['API_KEYS', 'API_KEY'],
    ['API_KEYS_FILE', 'API_KEY_FILE'],
    ['APIKEY', 'API_KEY'],
    ['api_key', 'API_KEY'],
    ['Port', 'PORT'],
    ['LOADER_PORT_', 'PORT'],
    ['LOADER_HOST', 'HOST'],
    ['AZAION_API_KEY', 'API_KEY'],
    ['UPSTREAM_TIMEOUT', 'UPSTREAM_TIMEOUT_MS'],
    ['STALL_TIMEOUT_SECONDS', 'STALL_TIMEOUT_MS'],
    ['ENGINE_STAL_TIMEOUT_MS', 'ENGINE_STALL_TIMEOUT_MS'],
    ['LOGLEVEL', 'LOG_LEVEL'],
    ['HARDWARE_ID_FILE', 'HARDWARE_ID'],
    ['DOCKER_TLS', 'DOCKER_TLS_VERIFY'],
  ];
  for (const [name, meant] of MEANT) {
    it(`is told with the name that was probably meant: ${name}`, () => {
      assert.deepEqual(warningsFor(name), [
        `The variable ${name} is not known, and has no effect. Did you mean ${meant}?`,
      ]);
    });
  }

  it('is told without a guess where only its prefix is ours', () => {
    assert.deepEqual(warningsFor('LOADER_COLOUR'), ['The variable LOADER_COLOUR is not known, and has no effect.']);
  });

  it('is told once for each name, without values', () => {
    const warnings = warningsFor('RESOURCE_URL', 'MODEL_CACHE', 'API_KEYS');
    assert.equal(warnings.length, 3);
    assert.doesNotMatch(warnings.join(), /hush/);
  });

  it('is not told when it is empty', () => {
    assert.deepEqual(findLookalikes({ API_KEYS: '', RESOURCE_URL: undefined }, VARIABLE_NAMES), []);
  });
});

it('the variables of the Loader are not taken for lookalikes', () => {
  assert.deepEqual(warningsFor(...VARIABLE_NAMES), []);
});

it('variables of others are not taken for lookalikes', () => {
  const others = [
    ...[
      'PATH',
      'HOME',
      'HOSTNAME',
      'HOSTTYPE',
      'USER',
      'SHELL',
      'LANG',
      'LC_ALL',
      'TERM',
      'TZ',
      'TMPDIR',
      'PWD',
      'OLDPWD',
    ],
    ...['NODE_ENV', 'NODE_OPTIONS', 'NODE_EXTRA_CA_CERTS', 'NODE_COMPILE_CACHE', 'NODE_VERSION', 'YARN_VERSION'],
    ...['HTTP_PROXY', 'http_proxy', 'NO_PROXY', 'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_REGION'],
    ...['DOCKER_CONFIG', 'DOCKER_CONTEXT', 'DOCKER_BUILDKIT', 'DOCKER_API_VERSION', 'OPENAI_API_KEY', 'GITHUB_TOKEN'],
    ...['KUBERNETES_SERVICE_HOST', 'KUBERNETES_PORT', 'KUBERNETES_PORT_443_TCP_ADDR', 'LOADER_SERVICE_HOST'],
    ...['LOADER_SERVICE_PORT', 'LOADER_SERVICE_PORT_HTTP', 'LOADER_PORT', 'LOADER_PORT_8080_TCP'],
    ...['LOADER_PORT_8080_TCP_PROTO', 'STATE_DIRECTORY', 'CACHE_DIRECTORY', 'LOGS_DIRECTORY', 'INVOCATION_ID'],
    ...[
      'JOURNAL_STREAM',
      'CI',
      'SHLVL',
      'LOGNAME',
      'MAIL',
      'EDITOR',
      'npm_config_cache',
      'npm_package_name',
      'INIT_CWD',
    ],
  ];
  assert.deepEqual(warningsFor(...others), []);
});
