import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { LoaderError, PassingError } from '../../../src/errors.ts';
import { eventually } from '../../../lab/waiting.ts';
import { OwnLogin, type OwnLoginPauses } from '../../../src/upstream/own-login.ts';
import { Session } from '../../../src/upstream/upstream.ts';

/** Short ones, of which each test makes long the one that must not pass. */
const SHORT: OwnLoginPauses = { look: 5, passing: 5, refused: 5 };
const LONG_MS = 3_600_000;
const PASSING = new PassingError('api_unreachable', 'No connection.');
const REFUSED = new LoaderError('wrong_credentials', 'No.');

let password: string;
/** What the logins end with, one after the other; the rest succeed. */
let failures: Error[];
let logins: string[];
let latestSession: Session | undefined;
let end: AbortController;
let running: Promise<void>;

/** One is told from another by its identity alone. */
const newSession = () => Object.create(Session.prototype) as Session;

beforeEach(() => {
  password = 'first';
  failures = [];
  logins = [];
  latestSession = undefined;
  end = new AbortController();
});
afterEach(async () => {
  end.abort(new Error('the end of the test'));
  await running;
});

function run(pauses: Partial<OwnLoginPauses> = {}): void {
  const upstream = {
    get latestSession() {
      return latestSession;
    },
    login: (email: string, text: string) => {
      assert.equal(email, 'device@example.com');
      logins.push(text);
      const failure = failures.shift();
      if (failure !== undefined) return Promise.reject(failure);
      latestSession = newSession();
      return Promise.resolve(latestSession);
    },
  };
  const value = () => Promise.resolve(password);
  const account = { email: 'device@example.com', password: { value } };
  running = new OwnLogin({ ...account, upstream, pauses: { ...SHORT, ...pauses } }).run(end.signal);
}

/** Long enough for ten looks. */
const aWhile = () => new Promise((resolve) => setTimeout(resolve, 100));

describe("the Loader's own login", () => {
  it('is made at the start, once', async () => {
    run();
    await eventually(() => latestSession !== undefined);
    await aWhile();
    assert.deepEqual(logins, ['first']);
  });

  it('is repeated until it succeeds', async () => {
    failures = [PASSING, PASSING, new LoaderError('cdn_config_invalid', 'No.'), PASSING];
    run({ refused: LONG_MS });
    await eventually(() => latestSession !== undefined);
    assert.equal(logins.length, 5);
  });

  it('waits after a failure, as long as the server asks for', async () => {
    failures = [PASSING];
    run({ passing: LONG_MS });
    await aWhile();
    assert.equal(logins.length, 1);
    end.abort(new Error('asked anew'));
    await running;
    end = new AbortController();
    failures = [new PassingError('api_error', 'Busy.', { retryAfterMs: LONG_MS })];
    run();
    await aWhile();
    assert.equal(logins.length, 2);
  });

  it('is not repeated soon when the password is refused, but at once when the file changes', async () => {
    failures = [REFUSED, REFUSED];
    run({ refused: LONG_MS });
    await aWhile();
    assert.deepEqual(logins, ['first']);
    password = 'second';
    await eventually(() => logins.length === 2);
    await aWhile();
    password = 'third';
    await eventually(() => latestSession !== undefined);
    assert.deepEqual(logins, ['first', 'second', 'third']);
  });

  it('is repeated in the end when the password is refused', async () => {
    failures = [REFUSED];
    run({ passing: LONG_MS });
    await eventually(() => latestSession !== undefined);
    assert.deepEqual(logins, ['first', 'first']);
  });

  it('is made again with a new password, also after it has succeeded', async () => {
    run();
    await eventually(() => latestSession !== undefined);
    password = 'second';
    await eventually(() => logins.length === 2);
  });

  it('ends when another login takes over, before or after it has succeeded', async () => {
    failures = [PASSING];
    run({ passing: LONG_MS });
    await eventually(() => logins.length === 1);
    latestSession = newSession();
    await running;
    latestSession = undefined;
    run();
    await eventually(() => latestSession !== undefined);
    latestSession = newSession();
    await running;
    assert.equal(logins.length, 2);
  });
});
