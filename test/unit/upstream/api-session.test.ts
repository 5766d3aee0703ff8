import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { NEVER } from '../../../src/async/abort.ts';
import { LoaderError } from '../../../src/errors.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { ApiSession, type ApiSessionOptions } from '../../../src/upstream/api-session.ts';
import { ScriptedApi, type SeenCall } from '../../support/scripted-api.ts';

const KEY = randomBytes(32);
const CONTENT = randomBytes(100);

let api: ScriptedApi;
let validTokens: string[];
let logins: number;

beforeEach(async () => {
  api = await ScriptedApi.start();
  validTokens = ['token-0'];
  logins = 0;
  api.answer = (call) => {
    if (call.path === '/login') return { body: JSON.stringify({ token: `token-${++logins}` }) };
    return validTokens.includes(call.token ?? '') ? { body: encryptBuffer(CONTENT, KEY) } : { status: 401 };
  };
});

afterEach(async () => {
  await api[Symbol.asyncDispose]();
});

function session(options: Partial<ApiSessionOptions> = {}): ApiSession {
  return new ApiSession({
    api: api.link(),
    email: 'operator@example.com',
    password: 'secret',
    hardware: 'hardware',
    apiAesKey: KEY,
    token: 'token-0',
    checkToken: () => undefined,
    ...options,
  });
}

const paths = (calls: readonly SeenCall[]) => calls.map(({ path, token }) => `${path} ${token ?? '-'}`);

describe('a session', () => {
  it('fetches a file and decrypts it', async () => {
    assert.ok((await session().fetchResource('models/a b', 'm.small', NEVER)).equals(CONTENT));
    assert.deepEqual(paths(api.calls), ['/resources/get/models/a%20b token-0']);
    assert.deepEqual(JSON.parse(api.calls[0]?.body ?? ''), {
      fileName: 'm.small',
      password: 'secret',
      hardware: 'hardware',
    });
  });

  it('logs in again when its token is refused, repeats the call, and goes on with the fresh token', async () => {
    validTokens = ['token-1'];
    const renewed = session();
    assert.ok((await renewed.fetchResource('models', 'm.small', NEVER)).equals(CONTENT));
    await renewed.fetchResource('models', 'm.small', NEVER);
    assert.deepEqual(paths(api.calls), [
      '/resources/get/models token-0',
      '/login -',
      '/resources/get/models token-1',
      '/resources/get/models token-1',
    ]);
  });

  it('logs in once for all calls that wait for a fresh token', async () => {
    validTokens = ['token-1'];
    const renewed = session();
    const calls = Array.from({ length: 10 }, () => renewed.fetchResource('models', 'm.small', NEVER));
    for (const content of await Promise.all(calls)) assert.ok(content.equals(CONTENT));
    assert.equal(logins, 1);
  });

  it('does not log in again for a call whose refusal comes after that', async () => {
    validTokens = ['token-1'];
    const answer = api.answer;
    const gate = Promise.withResolvers<undefined>();
    api.answer = async (call) => {
      if (call.path.endsWith('/late') && call.token === 'token-0') await gate.promise;
      return await answer(call);
    };
    const renewed = session();
    const late = renewed.fetchResource('late', 'm.small', NEVER);
    await renewed.fetchResource('models', 'm.small', NEVER);
    gate.resolve(undefined);
    assert.ok((await late).equals(CONTENT));
    assert.equal(logins, 1);
  });

  it('fails with token_refused when the fresh token is refused too, and logs in again a while later', async () => {
    validTokens = [];
    const refused = session({ pauses: { token: 1_000 } });
    await assert.rejects(refused.fetchResource('models', 'm.small', NEVER), { code: 'token_refused' });
    assert.equal(api.calls.length, 3);
    validTokens = ['token-2'];
    for (let call = 0; call < 10; call++) {
      await assert.rejects(refused.fetchResource('models', 'm.small', NEVER), { code: 'token_refused' });
    }
    assert.equal(logins, 1);
    await sleep(1_000);
    assert.ok((await refused.fetchResource('models', 'm.small', NEVER)).equals(CONTENT));
    assert.equal(logins, 2);
  });

  it('makes one login for all calls when that is refused, and the next one a while later', async () => {
    validTokens = [];
    const answer = api.answer;
    api.answer = (call) => {
      if (call.path !== '/login') return answer(call);
      logins++;
      return { status: 401 };
    };
    const refused = session({ pauses: { login: 1_000 } });
    for (let call = 0; call < 10; call++) {
      await assert.rejects(refused.fetchResource('models', 'm.small', NEVER), { code: 'wrong_credentials' });
    }
    assert.equal(logins, 1);
    await sleep(1_000);
    await assert.rejects(refused.fetchResource('models', 'm.small', NEVER), { code: 'wrong_credentials' });
    assert.equal(logins, 2);
  });

  it('logs in again at once when the last login failed by an outage', async () => {
    validTokens = ['token-1'];
    const answer = api.answer;
    let outage = true;
    api.answer = (call) => (outage && call.path === '/login' ? { status: 503 } : answer(call));
    const renewed = session();
    await assert.rejects(renewed.fetchResource('models', 'm.small', NEVER), { code: 'api_error' });
    outage = false;
    assert.ok((await renewed.fetchResource('models', 'm.small', NEVER)).equals(CONTENT));
  });

  it('does not use a fresh token that fails the check', async () => {
    validTokens = ['token-1'];
    const checked = session({
      checkToken: () => {
        throw new LoaderError('token_invalid', 'no');
      },
    });
    await assert.rejects(checked.fetchResource('models', 'm.small', NEVER), { code: 'token_invalid' });
    assert.deepEqual(paths(api.calls), ['/resources/get/models token-0', '/login -']);
  });

  it('leaves the login to the others when one caller gives up', async () => {
    validTokens = ['token-1'];
    const answer = api.answer;
    const asked = Promise.withResolvers<undefined>();
    const gate = Promise.withResolvers<undefined>();
    api.answer = async (call) => {
      if (call.path === '/login') {
        asked.resolve(undefined);
        await gate.promise;
      }
      return await answer(call);
    };
    const renewed = session();
    const abort = new AbortController();
    const leaving = renewed.fetchResource('models', 'm.small', abort.signal);
    const staying = renewed.fetchResource('models', 'm.small', NEVER);
    await asked.promise;
    abort.abort(new Error('the client has left'));
    gate.resolve(undefined);
    await assert.rejects(leaving, /the client has left/);
    assert.ok((await staying).equals(CONTENT));
    assert.equal(logins, 1);
  });

  it('tells that a file is encrypted under another key', async () => {
    api.answer = () => ({ body: encryptBuffer(CONTENT, KEY).subarray(0, 33) });
    await assert.rejects(session().fetchResource('models', 'm.small', NEVER), {
      code: 'envelope_invalid',
      message: /^m\.small from the Resource API can't be decrypted/,
    });
  });
});
