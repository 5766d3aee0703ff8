import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { LoaderError } from '../../../src/errors.ts';
import { ApiSession, logInToApi } from '../../../src/upstream/api-session.ts';
import { ScriptedApi } from '../../support/scripted-api.ts';

const USER = { email: 'a@example.com', password: 'secret' };

let api: ScriptedApi;

beforeEach(async () => {
  api = await ScriptedApi.start();
});

afterEach(async () => {
  await api[Symbol.asyncDispose]();
});

/** A session whose token needs no renewal. The arguments are those of `ScriptedApi.link`. */
function session(...link: Parameters<ScriptedApi['link']>): ApiSession {
  return new ApiSession({
    ...USER,
    api: api.link(...link),
    hardware: 'hardware',
    apiAesKey: Buffer.alloc(32),
    token: 'token-0',
    checkToken: () => undefined,
  });
}

/** Reads what is not encrypted, and so can be compared. */
async function read(...link: Parameters<ScriptedApi['link']>): Promise<string> {
  return String(await session(...link).fetchKeyFragment(NEVER));
}

describe('a read', () => {
  for (const status of [408, 429, 502, 503, 504]) {
    it(`is repeated after ${status}, as long as the patience lasts`, async () => {
      api.answer = () => (api.calls.length < 4 ? { status } : { body: 'content' });
      assert.equal(await read(), 'content');
      api.answer = () => ({ status });
      const failed = read(5_000, 300);
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
      assert.equal(await read(), 'content');
      api.answer = () => answer;
      await assert.rejects(read(5_000, 300), { code });
    });
  }

  for (const [answer, code] of [
    [{ status: 404 }, 'resource_not_in_api'],
    [{ body: 'x'.repeat(4 * 1024 * 1024 + 1) }, 'api_invalid_response'],
  ] as const) {
    it(`is not repeated when it fails with ${code} (${JSON.stringify(answer).slice(0, 40)})`, async () => {
      api.answer = () => answer;
      await assert.rejects(session().fetchResource('models', 'm.small', NEVER), { code });
      assert.equal(api.calls.length, 1);
    });
  }

  it('takes an answer of 4 MiB', async () => {
    api.answer = () => ({ body: 'x'.repeat(4 * 1024 * 1024) });
    // It was read whole, and is too long for a key fragment only.
    await assert.rejects(session().fetchKeyFragment(NEVER), { code: 'key_fragment_invalid' });
  });

  it('does not follow a redirect, and tells where it leads without path and query', async () => {
    await using other = await ScriptedApi.start();
    for (const status of [301, 302, 303, 307, 308]) {
      const location = `${other.url}/login?from=secret`;
      api.answer = () => ({ status, location });
      await assert.rejects(read(), (error) => {
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
    await assert.rejects(logInToApi(api.link(), USER.email, USER.password, NEVER), { code: 'api_redirected' });
  });

  it('names the host and the code of the system when there is no connection', async () => {
    await assert.rejects(read(5000, 100, 'http://127.0.0.1:1'), {
      code: 'api_unreachable',
      message: /^The Resource API at 127\.0\.0\.1:1 gave no answer: .*ECONNREFUSED.*RESOURCE_API_URL/,
    });
  });

  it('fails with api_timeout when all answers are late', async () => {
    api.answer = () => new Promise(() => undefined);
    await assert.rejects(read(50, 300), { code: 'api_timeout' });
    assert.ok(api.calls.length > 1);
    api.calls.length = 0;
    await assert.rejects(read(50, 40), { code: 'api_timeout' });
    assert.equal(api.calls.length, 1);
  });

  it('fails with the reason of its signal', async () => {
    const abort = new AbortController();
    const reason = new Error('the client has left');
    api.answer = () => {
      abort.abort(reason);
      return new Promise(() => undefined);
    };
    await assert.rejects(session().fetchKeyFragment(abort.signal), reason);
  });

  it('never quotes what the API answered', async () => {
    api.answer = () => ({ status: 500, body: 'a-secret-in-a-stack-trace' });
    await assert.rejects(read(), (error) => {
      assert.ok(error instanceof LoaderError);
      assert.doesNotMatch(`${error.message} ${String(error.cause)}`, /a-secret/);
      return true;
    });
  });
});

describe('a store', () => {
  it('is repeated with the same bytes, since the API may have taken them or not', async () => {
    api.answer = () => ({ status: api.calls.length < 3 ? 503 : 200 });
    await session().storeResource('models', 'm.small', Buffer.from('content'), NEVER);
    assert.equal(api.calls.length, 3);
    for (const { body } of api.calls) assert.match(body, /filename="m\.small"[^]*\r\n\r\ncontent\r\n/);
  });
});

describe('a path that the API does not have', () => {
  it('is api_error, and no missing file, for what asks for none', async () => {
    api.answer = () => ({ status: 404 });
    const expected = { code: 'api_error', message: /404.*RESOURCE_API_URL/ };
    await assert.rejects(logInToApi(api.link(), USER.email, USER.password, NEVER), expected);
    await assert.rejects(session().storeResource('models', 'm.small', Buffer.from('content'), NEVER), expected);
  });
});

describe('the key fragment', () => {
  it('comes as it is', async () => {
    api.answer = () => ({ body: Buffer.from([0, 255, 10]) });
    assert.deepEqual([...(await session().fetchKeyFragment(NEVER))], [0, 255, 10]);
  });

  it('may have 64 KiB', async () => {
    api.answer = () => ({ body: 'x'.repeat(64 * 1024) });
    assert.equal((await session().fetchKeyFragment(NEVER)).length, 64 * 1024);
  });

  it('is key_fragment_invalid where there is none, an empty one, or one of more than 64 KiB', async () => {
    for (const answer of [{ status: 404 }, { body: '' }, { body: 'x'.repeat(64 * 1024 + 1) }]) {
      api.answer = () => answer;
      await assert.rejects(session().fetchKeyFragment(NEVER), { code: 'key_fragment_invalid' });
    }
  });
});

describe('a login', () => {
  it('is sent once more when its connection breaks, and not when the API is slow or fails', async () => {
    const logIn = async () => await logInToApi(api.link(100), USER.email, USER.password, NEVER);
    api.answer = () => (api.calls.length === 1 ? { isCut: true } : { body: '{"token":"abc"}' });
    assert.equal(await logIn(), 'abc');
    for (const [answer, code, calls] of [
      [{ isCut: true }, 'api_unreachable', 2],
      [new Promise<never>(() => undefined), 'api_timeout', 1],
      [{ status: 503 }, 'api_error', 1],
    ] as const) {
      api.calls.length = 0;
      api.answer = () => answer;
      await assert.rejects(logIn(), { code });
      assert.equal(api.calls.length, calls);
    }
  });

  it('learns the time of the API', async () => {
    api.answer = () => ({ body: '{"token":"abc"}' });
    await logInToApi(api.link(), USER.email, USER.password, NEVER);
    assert.ok(Math.abs(api.links.clock.offsetMs ?? Infinity) < 5000);
  });

  it('returns the token', async () => {
    api.answer = () => ({ body: '{"token":"abc"}' });
    assert.equal(await logInToApi(api.link(), USER.email, USER.password, NEVER), 'abc');
    assert.deepEqual(JSON.parse(api.calls[0]?.body ?? ''), { email: 'a@example.com', password: 'secret' });
  });

  it('returns a token of 16 KiB', async () => {
    const token = 'x'.repeat(16 * 1024);
    api.answer = () => ({ body: JSON.stringify({ token }) });
    assert.equal(await logInToApi(api.link(), USER.email, USER.password, NEVER), token);
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
      await assert.rejects(logInToApi(api.link(), USER.email, USER.password, NEVER), { code });
      assert.equal(api.calls.length, 1);
    });
  }
});
