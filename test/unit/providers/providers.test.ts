import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { BigPartCache } from '../../../src/cache/big-part-cache.ts';
import { LoaderError } from '../../../src/errors.ts';
import { createLogger } from '../../../src/logger.ts';
import { PartialResultError, type Provider, type TaskProgress } from '../../../src/tasks/provider.ts';
import { createEvictProvider } from '../../../src/providers/evict-provider.ts';
import { createPrefetchProvider } from '../../../src/providers/prefetch-provider.ts';
import { createUnlockProvider } from '../../../src/providers/unlock-provider.ts';
import { createVerifyProvider } from '../../../src/providers/verify-provider.ts';
import type { UnlockStatus } from '../../../src/unlock/unlock-service.ts';
import type { JsonObject, JsonValue } from '../../../src/json.ts';

/** The providers alone: without a runner, a database, HTTP or anything upstream. */

const DAY_S = 24 * 60 * 60;
let folder = '';
let cache: BigPartCache;
let reports: TaskProgress[] = [];
let lines: string[] = [];

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-providers-'));
  cache = new BigPartCache(folder, createLogger({ level: 'silent' }));
  reports = [];
  lines = [];
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function run(
  provider: Provider,
  parameters: JsonObject,
  options: { signal?: AbortSignal; isUnattended?: boolean } = {},
): Promise<JsonValue> {
  return await provider.prepare(parameters).run({
    signal: options.signal ?? new AbortController().signal,
    isUnattended: options.isUnattended ?? false,
    report: (progress) => reports.push(progress),
    log: (_level, text) => lines.push(text),
  });
}

async function addCopy(name: string, length: number, ageDays: number): Promise<void> {
  await mkdir(path.join(folder, 'models'), { recursive: true });
  const file = path.join(folder, 'models', `${name}.big`);
  await writeFile(file, Buffer.alloc(length, name));
  const seconds = Date.now() / 1000 - ageDays * DAY_S;
  await utimes(file, seconds, seconds);
}

async function cachedFiles(): Promise<string[]> {
  const entries = await Array.fromAsync(cache.list(new AbortController().signal));
  return entries.map(({ file }) => file).sort();
}

function notLoggedIn(): never {
  throw new LoaderError('not_authenticated', 'Nobody is logged in.');
}

describe('evict, alone', () => {
  beforeEach(async () => {
    await addCopy('old', 1_000, 40);
    await addCopy('middle', 2_000, 20);
    await addCopy('new', 3_000, 0);
  });

  it('removes what was not loaded for so many days', async () => {
    const result = await run(createEvictProvider(cache), { max_age_days: 30 });
    assert.deepEqual(await cachedFiles(), ['middle.big', 'new.big']);
    assert.partialDeepStrictEqual(result, { files_removed: 1, bytes_removed: 1_000, bytes_left: 5_000 });
    assert.deepEqual(reports, [{ bytesDone: 1_000, bytesTotal: 1_000 }]);
  });

  it('removes the oldest until no more than so many bytes are left, but nothing that is being read', async () => {
    using _hold = cache.hold({ folder: 'models', name: 'old' });
    const result = await run(createEvictProvider(cache), { max_bytes: 4_500 });
    assert.deepEqual(await cachedFiles(), ['new.big', 'old.big']);
    assert.partialDeepStrictEqual(result, { files_removed: 1, files_held: 1, bytes_left: 4_000 });
  });

  it('stops between two files when it is told to', async () => {
    const abort = new AbortController();
    const { run: remove } = createEvictProvider(cache).prepare({ max_bytes: 0 });
    const context = { signal: abort.signal, isUnattended: false, log: () => undefined };
    const report = () => abort.abort(new Error('told to'));
    await assert.rejects(remove({ ...context, report }), /told to/);
    assert.deepEqual(await cachedFiles(), ['middle.big', 'new.big']);
  });
});

describe('verify, alone', () => {
  const fetched: string[] = [];
  const downloads = {
    planPrefetch: ({ name }: { name: string }) => {
      const run = async () => {
        fetched.push(name);
        await Promise.resolve();
      };
      return Promise.resolve({ length: 1, isCached: false, run });
    },
  };

  beforeEach(async () => {
    fetched.length = 0;
    await addCopy('one', 5_000_000, 0);
    await addCopy('two', 1_000, 0);
  });

  it('digests what has no digests, and finds it good the next time', async () => {
    const provider = createVerifyProvider({ upstream: { currentSession: notLoggedIn }, cache, downloads });
    assert.partialDeepStrictEqual(await run(provider, {}), { recorded: 2, good: 0, bad: 0 });
    assert.deepEqual(reports.at(-1), { bytesDone: 5_001_000, bytesTotal: 5_001_000 });
    assert.partialDeepStrictEqual(await run(provider, {}), { recorded: 0, good: 2, bad: 0 });
  });

  for (const isLoggedIn of [true, false]) {
    it(`sets a bad copy aside, and ${isLoggedIn ? 'fetches it again' : 'says why it is not mended'}`, async () => {
      const currentSession = isLoggedIn ? () => ({}) as never : notLoggedIn;
      const provider = createVerifyProvider({ upstream: { currentSession }, cache, downloads });
      await run(provider, {});
      await truncate(path.join(folder, 'models', 'one.big'), 4_999_999);
      const result = await run(provider, {});
      assert.partialDeepStrictEqual(result, {
        good: 1,
        bad: 1,
        bad_copies: [{ file: 'one.big', mended: isLoggedIn, code: isLoggedIn ? null : 'not_authenticated' }],
      });
      assert.deepEqual(await cachedFiles(), ['one.big.bad', 'two.big']);
      assert.deepEqual(fetched, isLoggedIn ? ['one'] : []);
    });
  }
});

describe('prefetch, alone', () => {
  const RESOURCES = ['cached', 'fetched', 'missing'].map((filename) => ({ folder: 'models', filename }));
  const downloads = {
    planPrefetch: ({ name }: { name: string }) => {
      if (name === 'missing') return Promise.reject(new LoaderError('resource_not_in_cdn', 'There is none.'));
      const run = async (_signal: AbortSignal, onBytes: (bytes: number) => void) => {
        for (const bytes of [30, 60, 100]) onBytes(bytes);
        await Promise.resolve();
      };
      return Promise.resolve({ length: 100, isCached: name === 'cached', run });
    },
  };
  const loggedIn = {
    isAuthenticated: true,
    authenticated: () => Promise.resolve(),
    currentSession: () => ({}) as never,
  };

  it('tells of each resource what became of it, and reports the bytes that were missing', async () => {
    const provider = createPrefetchProvider({ upstream: loggedIn, downloads });
    const failure: unknown = await run(provider, { resources: [...RESOURCES, ...RESOURCES] }).catch(
      (error: unknown) => error,
    );
    assert.ok(failure instanceof PartialResultError);
    assert.equal(failure.code, 'prefetch_incomplete');
    assert.partialDeepStrictEqual(failure.result, {
      resources: [{ status: 'cached' }, { status: 'fetched', bytes: 100 }, { code: 'resource_not_in_cdn' }],
    });
    assert.deepEqual(reports.at(-1), { bytesDone: 100, bytesTotal: 100 });
    assert.equal(lines.length, 3);
  });

  it('fails at once when nobody is logged in, but waits when nobody waits for it', async () => {
    const login = Promise.withResolvers<undefined>();
    const upstream = { isAuthenticated: false, authenticated: () => login.promise, currentSession: notLoggedIn };
    const provider = createPrefetchProvider({ upstream, downloads });
    const parameters = { resources: RESOURCES.slice(0, 1) };
    await assert.rejects(run(provider, parameters), { code: 'not_authenticated' });
    const waiting = run(provider, parameters, { isUnattended: true });
    upstream.currentSession = () => ({}) as never;
    login.resolve(undefined);
    assert.partialDeepStrictEqual(await waiting, { resources: [{ status: 'cached' }] });
  });
});

describe('unlock, alone', () => {
  function statuses(...last: Pick<UnlockStatus, 'state' | 'error' | 'code'>[]): () => AsyncGenerator<UnlockStatus> {
    return async function* () {
      for (const status of last) {
        await Promise.resolve();
        yield { ...status, progress: null };
      }
    };
  }
  const begun = { state: 'authenticating', error: null, code: null } as const;
  const base = {
    start: () => Promise.resolve('authenticating' as const),
    cancel: () => Promise.resolve('error' as const),
  };

  it('goes with a run to its end, and notes its states', async () => {
    const watch = statuses(begun, { state: 'ready', error: null, code: null });
    const provider = createUnlockProvider({ ...base, watch, onRun: () => undefined });
    const result = await run(provider, { email: 'a@example.com', password: 'secret' });
    assert.deepEqual(result, { state: 'ready', images: null, bytes: null });
    assert.deepEqual(lines.slice(-2), ['authenticating', 'ready']);
    assert.deepEqual(provider.prepare({ email: 'a@example.com', password: 'secret' }).parameters, {
      email: 'a@example.com',
    });
  });

  it('fails as the run does, and is cancelled where that was', async () => {
    for (const [code, expected] of [
      ['archive_key_wrong', 'archive_key_wrong'],
      ['unlock_cancelled', 'task_cancelled'],
    ] as const) {
      const watch = statuses(begun, { state: 'error', error: 'It ended.', code });
      const provider = createUnlockProvider({ ...base, watch, onRun: () => undefined });
      await assert.rejects(run(provider, { email: 'a', password: 'b' }), { code: expected, message: 'It ended.' });
    }
  });
});
