import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { LoaderError } from '../../../src/errors.ts';
import type { ApiToken } from '../../../src/upstream/resource-api.ts';
import { ScriptedApi } from '../../support/scripted-api.ts';

const QUERY = { folder: 'models', fileName: 'm.small', password: 'secret', hardware: 'hardware' };
const TOKEN: ApiToken = {
  present: 'token-0',
  renew: () => Promise.reject(new LoaderError('wrong_credentials', 'The token needs no renewal here.')),
};

let api: ScriptedApi;

beforeEach(async () => {
  api = await ScriptedApi.start();
});

afterEach(async () => {
  await api[Symbol.asyncDispose]();
});

describe('a read', () => {
  for (const status of [408, 429, 502, 503, 504]) {
    it(`is repeated after ${status}, as long as the patience lasts`, async () => {
      api.answer = () => (api.calls.length < 4 ? { status } : { body: 'content' });
      assert.equal(String(await api.client().getResource(QUERY, TOKEN, NEVER)), 'content');
      api.answer = () => ({ status });
      const failed = api.client(5_000, 300).getResource(QUERY, TOKEN, NEVER);
      await assert.rejects(failed, { code: 'api_error', message: /It was tried \d+ times within/ });
    });
  }

  for (const [answer, code] of [
    [{ status: 500 }, 'api_error'],
    [{ type: 'text/html', body: '<p>Welcome to the hotel network</p>' }, 'api_invalid_response'],
    [{ status: 404, type: 'text/html', body: '<p>Not here</p>' }, 'api_invalid_response'],
  ] as const) {
    it(`is repeated after an answer that may pass, and fails with ${code} when it stays (${JSON.stringify(answer).slice(0, 40)})`, async () => {
      api.answer = () => (api.calls.length === 1 ? answer : { body: 'content' });
      assert.equal(String(await api.client().getResource(QUERY, TOKEN, NEVER)), 'content');
      api.answer = () => answer;
      await assert.rejects(api.client(5_000, 300).getResource(QUERY, TOKEN, NEVER), { code });
    });
  }

  for (const [answer, code] of [
    [{ status: 404 }, 'resource_not_in_api'],
    [{ body: 'x'.repeat(4 * 1024 * 1024 + 1) }, 'api_invalid_response'],
  ] as const) {
    it(`is not repeated when it fails with ${code} (${JSON.stringify(answer).slice(0, 40)})`, async () => {
      api.answer = () => answer;
      await assert.rejects(api.client().getResource(QUERY, TOKEN, NEVER), { code });
      assert.equal(api.calls.length, 1);
    });
  }

  it('does not follow a redirect, and tells where it leads without path and query', async () => {
    await using other = await ScriptedApi.start();
    for (const status of [301, 302, 303, 307, 308]) {
      const location = `${other.url}/login?from=secret`;
      api.answer = () => ({ status, location });
      await assert.rejects(api.client().getResource(QUERY, TOKEN, NEVER), (error) => {
        assert.ok(error instanceof LoaderError && error.code === 'api_redirected');
        assert.match(
          error.message,
          new RegExp(`^The Resource API at ${new URL(api.url).host} redirects to ${other.url} `),
        );
        assert.doesNotMatch(error.message, /secret/);
        return true;
      });
    }
    assert.deepEqual([api.calls.length, other.calls.length], [5, 0]);
    api.answer = () => ({ status: 302, location: 'http://[' });
    await assert.rejects(api.client().login('a@example.com', 'secret', NEVER), { code: 'api_redirected' });
  });

  it('names the host and the code of the system when there is no connection', async () => {
    await assert.rejects(api.client(5000, 100, 'http://127.0.0.1:1').getResource(QUERY, TOKEN, NEVER), {
      code: 'api_unreachable',
      message: /^The Resource API at 127\.0\.0\.1:1 gave no answer: .*ECONNREFUSED.*RESOURCE_API_URL/,
    });
  });

  it('fails with api_timeout when all answers are late', async () => {
    api.answer = () => new Promise(() => undefined);
    await assert.rejects(api.client(50, 300).getResource(QUERY, TOKEN, NEVER), { code: 'api_timeout' });
    assert.ok(api.calls.length > 1);
    api.calls.length = 0;
    await assert.rejects(api.client(50, 40).getResource(QUERY, TOKEN, NEVER), { code: 'api_timeout' });
    assert.equal(api.calls.length, 1);
  });

  it('fails with the reason of its signal', async () => {
    const abort = new AbortController();
    const reason = new Error('the client has left');
    api.answer = () => {
      abort.abort(reason);
      return new Promise(() => undefined);
    };
    await assert.rejects(api.client().getResource(QUERY, TOKEN, abort.signal), reason);
  });

  it('never quotes what the API answered', async () => {
    api.answer = () => ({ status: 500, body: 'a-secret-in-a-stack-trace' });
    await assert.rejects(api.client().getResource(QUERY, TOKEN, NEVER), (error) => {
      assert.ok(error instanceof LoaderError);
      assert.doesNotMatch(`${error.message} ${String(error.cause)}`, /a-secret/);
      return true;
    });
  });
});

describe('a store', () => {
  it('is repeated with the same bytes, since the API may have taken them or not', async () => {
    api.answer = () => ({ status: api.calls.length < 3 ? 503 : 200 });
    await api.client().putResource('models', 'm.small', Buffer.from('content'), TOKEN, NEVER);
    assert.equal(api.calls.length, 3);
    for (const { body } of api.calls) assert.match(body, /filename="m\.small"[^]*\r\n\r\ncontent\r\n/);
  });
});

describe('the key fragment', () => {
  it('comes as it is', async () => {
    api.answer = () => ({ body: Buffer.from([0, 255, 10]) });
    assert.deepEqual([...(await api.client().getKeyFragment(TOKEN, NEVER))], [0, 255, 10]);
  });

  it('may have 64 KiB', async () => {
    api.answer = () => ({ body: 'x'.repeat(64 * 1024) });
    assert.equal((await api.client().getKeyFragment(TOKEN, NEVER)).length, 64 * 1024);
  });

  it('is key_fragment_invalid where there is none, an empty one, or one of more than 64 KiB', async () => {
    for (const answer of [{ status: 404 }, { body: '' }, { body: 'x'.repeat(64 * 1024 + 1) }]) {
      api.answer = () => answer;
      await assert.rejects(api.client().getKeyFragment(TOKEN, NEVER), { code: 'key_fragment_invalid' });
    }
  });
});

describe('a login', () => {
  it('learns the time of the API', async () => {
    api.answer = () => ({ body: '{"token":"abc"}' });
    await api.client().login('a@example.com', 'secret', NEVER);
    assert.ok(Math.abs(api.links.clock.offsetMs ?? Infinity) < 5000);
  });

  it('returns the token', async () => {
    api.answer = () => ({ body: '{"token":"abc"}' });
    assert.equal(await api.client().login('a@example.com', 'secret', NEVER), 'abc');
    assert.deepEqual(JSON.parse(api.calls[0]?.body ?? ''), { email: 'a@example.com', password: 'secret' });
  });

  it('returns a token of 16 KiB', async () => {
    const token = 'x'.repeat(16 * 1024);
    api.answer = () => ({ body: JSON.stringify({ token }) });
    assert.equal(await api.client().login('a@example.com', 'secret', NEVER), token);
  });

  const answers = [
    [{ status: 401 }, 'wrong_credentials'],
    [{ status: 409 }, 'wrong_credentials'],
    [{ body: '{"token":7}' }, 'api_invalid_response'],
    [{ body: JSON.stringify({ token: 'x'.repeat(16 * 1024 + 1) }) }, 'token_invalid'],
    [{ body: 'no JSON' }, 'api_invalid_response'],
    [{ status: 503 }, 'api_error'],
  ] as const;
  for (const [answer, code] of answers) {
    it(`fails with ${code} when the API answers ${JSON.stringify(answer).slice(0, 40)}, and is not repeated`, async () => {
      api.answer = () => answer;
      await assert.rejects(api.client().login('a@example.com', 'secret', NEVER), { code });
      assert.equal(api.calls.length, 1);
    });
  }
});
