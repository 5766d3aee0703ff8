import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, afterEach, before, describe, it } from 'node:test';
import { Device, UPSTREAM_TIMEOUT_MS } from '../../support/device.ts';
import { VERSION } from '../../../src/version.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';

describe('POST /login', { skip: S3_SKIP }, () => {
  let device: Device;
  const content = randomBytes(50_000);
  before(async () => {
    device = await Device.start();
  });
  afterEach(async () => {
    device.heal();
    await device.origin.publishCdnConfig(device.goodCdnConfig);
  });
  after(() => device.stop());

  async function expectRefusal(code: string, detail: RegExp): Promise<void> {
    const answer = await device.loader.login(device.email, device.password);
    assert.equal(answer.status, 401);
    assert.equal(answer.body.code, code);
    assert.match(String(answer.body.detail), detail);
  }

  it('answers 500 not_authenticated to a load before the first login', async () => {
    const response = await device.loader.postForJson('/load/model', { filename: 'model', folder: 'models' });
    assert.deepEqual([response.status, response.body.code], [500, 'not_authenticated']);
    const upload = await device.loader.upload('model', content);
    assert.deepEqual([upload.status, upload.body.code], [500, 'not_authenticated']);
    const { cache, hardware, problems, ...status } = await device.loader.status();
    assert.deepEqual(status, {
      status: 'healthy',
      authenticated: false,
      modelCacheDir: device.cacheFolder,
      version: VERSION,
      login: { user: null, role: null, since: null, error: null, code: null },
      unlock: { state: 'idle', error: null, code: null },
      engine: { host: '/var/run/docker.sock', reachable: null, error: null },
      clock_offset_ms: null,
    });
    assert.deepEqual([cache.bytes, cache.copies, cache.writable], [0, 0, true]);
    assert.ok((cache.free_bytes ?? 0) > 1_000_000);
    // That of HARDWARE_ID, with which all tests run.
    assert.deepEqual([hardware.scheme, /^[0-9a-f]{12}$/.test(hardware.digest ?? '')], [1, true]);
    assert.deepEqual(
      problems.map(({ code }) => code),
      ['not_authenticated'],
    );
  });

  it('refuses a wrong password, and an unknown user', async () => {
    const wrongPassword = await device.loader.login(device.email, 'not-the-password');
    assert.deepEqual([wrongPassword.status, wrongPassword.body.code], [401, 'wrong_credentials']);
    const unknownUser = await device.loader.login('nobody@example.com', device.password);
    assert.deepEqual([unknownUser.status, unknownUser.body.code], [401, 'wrong_credentials']);
  });

  it('signs in', async () => {
    const answer = await device.loader.login(device.email, device.password);
    assert.equal(answer.status, 200);
    assert.deepEqual(answer.body, { status: 'ok' });
    const status = (await (await fetch(`${device.loader.url}/status`)).json()) as { authenticated: boolean };
    assert.equal(status.authenticated, true);
    await device.upload('model', content);
  });

  // Each of these comes after a good login: the earlier session must go on serving.
  const faults: { title: string; arrange: () => Promise<void> | void; code: string; detail: RegExp }[] = [
    {
      title: 'the API closes connections',
      arrange: () => {
        device.apiProxy.fault = () => ({ kind: 'refuse' });
      },
      code: 'api_unreachable',
      detail: /Resource API at 127\.0\.0\.1:\d+ gave no answer: the connection broke/,
    },
    {
      title: 'the API never answers',
      arrange: () => {
        device.apiProxy.fault = () => ({ kind: 'never-answer' });
      },
      code: 'api_timeout',
      detail: new RegExp(`did not answer within ${UPSTREAM_TIMEOUT_MS} ms`),
    },
    {
      title: 'the API goes silent within its answer',
      arrange: () => {
        device.apiProxy.fault = () => ({ kind: 'silence', afterBytes: 10 });
      },
      code: 'api_timeout',
      detail: /did not answer/,
    },
    {
      title: 'the API answers HTML',
      arrange: () => {
        device.apiProxy.fault = () => ({
          kind: 'answer',
          status: 200,
          headers: { 'content-type': 'text/html' },
          body: '<html>Welcome to the hotel network</html>',
        });
      },
      code: 'api_invalid_response',
      detail: /check RESOURCE_API_URL/,
    },
    {
      title: 'the API answers HTML in place of cdn.yaml',
      arrange: () => {
        device.apiProxy.fault = (request) =>
          request.url === '/login'
            ? { kind: 'pass' }
            : { kind: 'answer', status: 200, headers: { 'content-type': 'text/html' }, body: '<html></html>' };
      },
      code: 'api_invalid_response',
      detail: /web page/,
    },
    {
      title: 'the API answers 500',
      arrange: () => {
        device.apiProxy.fault = () => ({ kind: 'answer', status: 500, body: 'stack trace' });
      },
      code: 'api_error',
      detail: /^The Resource API at 127\.0\.0\.1:\d+ answered with status 500\.$/,
    },
    {
      title: 'the API answers a token that is no JWT',
      arrange: () => {
        device.apiProxy.fault = () => ({ kind: 'answer', status: 200, body: '{"token":"not-a-jwt"}' });
      },
      code: 'token_invalid',
      detail: /not a JWT/,
    },
    {
      title: 'the API refuses the fresh token',
      arrange: () => {
        device.apiProxy.fault = (request) =>
          request.url === '/login' ? { kind: 'pass' } : { kind: 'answer', status: 403 };
      },
      code: 'token_refused',
      detail: /even with a fresh token/,
    },
    {
      title: 'cdn.yaml is not YAML',
      arrange: () => device.origin.api.store('', 'cdn.yaml', Buffer.from('host: [unclosed\n secret: "x')),
      code: 'cdn_config_invalid',
      detail: /not YAML/,
    },
    {
      title: 'cdn.yaml lacks a field',
      arrange: () => device.origin.publishCdnConfig({ ...device.goodCdnConfig, uploader_access_secret: undefined }),
      code: 'cdn_config_invalid',
      detail: /uploader_access_secret is missing/,
    },
    {
      title: 'cdn.yaml decrypts to garbage',
      arrange: () => {
        device.apiProxy.fault = (request) =>
          request.url === '/login'
            ? { kind: 'pass' }
            : { kind: 'answer', status: 200, body: 'an envelope under nobodys key, 48 bytes long: end' };
      },
      code: 'cdn_config_invalid',
      detail: /cdn\.yaml .*can't be decrypted/,
    },
    {
      title: 'the API has no cdn.yaml',
      arrange: () => {
        device.apiProxy.fault = (request) =>
          request.url === '/login' ? { kind: 'pass' } : { kind: 'answer', status: 404 };
      },
      code: 'resource_not_in_api',
      detail: /no file cdn\.yaml: check/,
    },
  ];
  for (const { title, arrange, code, detail } of faults) {
    it(`answers 401 ${code} when ${title}, and keeps the earlier session`, async () => {
      await arrange();
      await expectRefusal(code, detail);
      device.heal();
      const response = await device.loader.load('model');
      assert.equal((await digestBody(response)).sha256, sha256(content));
    });
  }

  it('is not misled by a wrong password after a good login', async () => {
    assert.equal((await device.loader.login(device.email, 'wrong')).status, 401);
    assert.equal((await digestBody(await device.loader.load('model'))).sha256, sha256(content));
  });

  it('survives a connection that fails once while cdn.yaml is read', async () => {
    let failures = 0;
    device.apiProxy.fault = (request) =>
      request.url !== '/login' && failures++ === 0 ? { kind: 'refuse' } : { kind: 'pass' };
    assert.equal((await device.loader.login(device.email, device.password)).status, 200);
    assert.equal(failures, 2);
  });

  it('answers /health while the API hangs', async () => {
    device.apiProxy.fault = () => ({ kind: 'never-answer' });
    const login = device.loader.login(device.email, device.password);
    const startedAt = performance.now();
    assert.deepEqual(await (await fetch(`${device.loader.url}/health`)).json(), { status: 'healthy' });
    assert.ok(performance.now() - startedAt < 500);
    assert.equal((await login).status, 401);
  });

  it('is told at GET /status, with who it is and why the last one failed', async () => {
    await device.login();
    await device.loader.login(device.email, 'wrong-password');
    const { login, problems, authenticated } = await device.loader.status();
    assert.deepEqual([login.user, login.role, login.code], [device.email, 'Operator', 'wrong_credentials']);
    assert.match(login.error ?? '', /^The Resource API refused the email and password/);
    assert.ok(Math.abs(Date.parse(login.since ?? '') - Date.now()) < 60_000);
    assert.deepEqual([authenticated, problems], [true, []]);
    await device.login();
    assert.deepEqual((await device.loader.status()).login.code, null);
  });
});

describe('the resource key', { skip: S3_SKIP }, () => {
  it('is asked for by name when neither the environment nor cdn.yaml has one', async () => {
    const device = await Device.start();
    try {
      await device.origin.publishCdnConfig({ ...device.goodCdnConfig, resource_key: undefined });
      await device.login();
      const load = await device.loader.postForJson('/load/m', { filename: 'm', folder: 'models' });
      assert.deepEqual([load.status, load.body.code], [500, 'resource_key_missing']);
      assert.match(String(load.body.detail), /RESOURCE_KEY/);
      const upload = await device.loader.upload('m', randomBytes(10));
      assert.deepEqual([upload.status, upload.body.code], [500, 'resource_key_missing']);
    } finally {
      await device.stop();
    }
  });
});

describe("the token's signature", { skip: S3_SKIP }, () => {
  it('fails the login where JWT_SECRET is set and does not match', async () => {
    const device = await Device.start({ env: { JWT_SECRET: 'another-secret-than-the-origin-has' } });
    try {
      const answer = await device.loader.login(device.email, device.password);
      assert.deepEqual([answer.status, answer.body.code], [401, 'token_invalid']);
    } finally {
      await device.stop();
    }
  });
});
