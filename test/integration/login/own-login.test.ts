import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { FaultProxy } from '../../../lab/faults/fault-proxy.ts';
import { DEMO_USER, Origin } from '../../../lab/upstream/origin.ts';
import { eventually } from '../../../lab/waiting.ts';
import { TestLoader } from '../../support/test-loader.ts';

describe("the Loader's own login", { timeout: 120_000 }, () => {
  let folder = '';
  let passwordFile = '';
  let origin: Origin;
  let api: FaultProxy;
  let loader: TestLoader;

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'loader-own-login-'));
    passwordFile = path.join(folder, 'password');
    origin = await Origin.start({ folder: path.join(folder, 'origin') });
    api = await FaultProxy.start(origin.api.url);
  });
  beforeEach(async () => {
    api.reset();
    await writeFile(passwordFile, `${DEMO_USER.password}\n`);
  });
  afterEach(() => loader.stop());
  after(async () => {
    await api.stop();
    await origin.stop();
    await rm(folder, { recursive: true, force: true });
  });

  async function start(env: Readonly<Record<string, string>> = {}): Promise<void> {
    loader = await TestLoader.start({
      env: {
        RESOURCE_API_URL: api.url,
        LOGIN_EMAIL: DEMO_USER.email,
        LOGIN_PASSWORD_FILE: passwordFile,
        MODEL_CACHE_DIR: path.join(folder, 'models'),
        STATE_DIR: path.join(folder, 'state'),
        ...env,
      },
    });
  }

  const isLoggedIn = async () => (await loader.get('/status')).body['authenticated'] === true;
  const logins = () => api.requests.filter(({ url }) => url === '/login').length;
  const ready = async () => {
    const { status, body } = await loader.get('/ready');
    return [status, (body['reasons'] as { code: string }[] | undefined)?.map(({ code }) => code) ?? body];
  };
  const load = () => loader.postForJson('/load/model', { filename: 'model', folder: 'models' });
  const failureLines = () =>
    loader
      .log()
      .split('\n')
      .filter((line) => line.includes('The login failed'));

  it('follows a start by itself, and a load that comes at once waits for it', async () => {
    await start();
    // The resource is not there: the API has been asked for it, so there was a session.
    assert.equal((await load()).body.code, 'resource_not_in_api');
    assert.equal(await isLoggedIn(), true);
    assert.equal(logins(), 1);
    assert.deepEqual(await ready(), [200, { ready: true }]);
    assert.equal(loader.log().includes(DEMO_USER.password), false);
  });

  it('succeeds within 15 s of the return of the API, and says meanwhile why it has not', async () => {
    api.fault = () => ({ kind: 'refuse' });
    await start();
    await eventually(() => failureLines().length > 0);
    const refused = await load();
    assert.deepEqual([refused.status, refused.body.code], [500, 'not_authenticated']);
    assert.match(String(refused.body.detail), /^No user is logged in: the last login failed\. The Resource API at /);
    assert.equal((JSON.parse(failureLines()[0] ?? '') as { level: string }).level, 'error');
    assert.deepEqual(await ready(), [503, ['not_authenticated']]);
    api.reset();
    await eventually(isLoggedIn, { timeoutMs: 15_000, pollMs: 50 });
  });

  it('with a wrong password is told once and not repeated, until the file changes', async () => {
    await writeFile(passwordFile, 'a-wrong-password');
    await start();
    await eventually(() => failureLines().length > 0);
    const { level, code } = JSON.parse(failureLines()[0] ?? '') as { level: string; code: string };
    assert.deepEqual([level, code], ['warn', 'wrong_credentials']);
    await writeFile(passwordFile, DEMO_USER.password);
    await eventually(isLoggedIn, { timeoutMs: 15_000, pollMs: 50 });
    assert.deepEqual([logins(), failureLines().length], [2, 1]);
  });

  it('ends where another one takes over', async () => {
    api.fault = () => ({ kind: 'refuse' });
    await start();
    await eventually(() => failureLines().length > 0);
    api.reset();
    assert.equal((await loader.login(DEMO_USER.email, DEMO_USER.password)).status, 200);
    const before = logins();
    await writeFile(passwordFile, 'a-wrong-password');
    await new Promise((resolve) => setTimeout(resolve, 8_000));
    assert.equal(logins(), before);
  });

  it('leaves API keys alone, which are rotated in their file', async () => {
    const keyFile = path.join(folder, 'keys');
    await writeFile(keyFile, 'old-key');
    await start({ API_KEY_FILE: keyFile });
    const statusOf = async (key: string) =>
      (await fetch(`${loader.url}/status`, { headers: { authorization: `Bearer ${key}` } })).status;
    assert.deepEqual([await statusOf('old-key'), await statusOf('new-key')], [200, 401]);
    await writeFile(keyFile, 'new-key');
    await eventually(async () => (await statusOf('new-key')) === 200, { timeoutMs: 10_000, pollMs: 100 });
    assert.equal(await statusOf('old-key'), 401);
    await writeFile(keyFile, ' , ');
    const isKept = async () =>
      (await statusOf('new-key')) === 200 && loader.log().includes('makes no sense: what it held before is still used');
    await eventually(isKept, { timeoutMs: 10_000, pollMs: 100 });
    assert.equal(await statusOf('new-key'), 200);
  });
});
