import assert from 'node:assert/strict';
import type { WriteProgress } from '../../../src/resources/written-ranges.ts';
import { beforeEach, describe, it } from 'node:test';
import { LoaderError, PassingError } from '../../../src/errors.ts';
import type { Patience } from '../../../src/async/outage.ts';
import { createPrefetchProvider } from '../../../src/providers/prefetch-provider.ts';
import { PartialResultError } from '../../../src/tasks/provider.ts';
import { RecordedContext } from '../../support/task-context.ts';

/** A version of a resource, as `prefetch` finds it. */
interface Version {
  readonly length: number;
  readonly isCached?: boolean;
  /** What its transfer fails with. */
  readonly failure?: Error;
}

/** Downloads that know a list of versions of each resource: every question gets the next one, or the last. */
class FakeDownloads {
  readonly versions: Record<string, readonly Version[]>;
  readonly asked: string[] = [];
  readonly fetched: string[] = [];

  constructor(versions: Record<string, readonly Version[]>) {
    this.versions = versions;
  }

  prefetch({ name }: { name: string }) {
    const versions = this.versions[name] ?? [];
    const version = versions[this.asked.filter((other) => other === name).length] ?? versions.at(-1);
    this.asked.push(name);
    if (version === undefined) return Promise.reject(new LoaderError('resource_not_in_cdn', 'There is none.'));
    const { length, isCached = false } = version;
    return Promise.resolve({ length, isCached, run: (signal: AbortSignal) => this.#run(name, version, signal) });
  }

  async *#run(
    name: string,
    { length, failure }: Version,
    signal: AbortSignal,
  ): AsyncGenerator<WriteProgress, void, undefined> {
    this.fetched.push(name);
    for (const part of [0, 0.5, 1]) {
      await Promise.resolve();
      signal.throwIfAborted();
      if (part === 0.5 && failure !== undefined) throw failure;
      yield { bytes: part * length, waitsFor: undefined };
    }
  }
}

const changed = () => new LoaderError('cdn_object_changed', 'It was replaced.');
const loggedIn = {
  isAuthenticated: true,
  authenticated: () => Promise.resolve(),
  session: () => Promise.resolve(undefined),
};

let context: RecordedContext;

beforeEach(() => {
  context = new RecordedContext();
});

function parameters(...names: string[]) {
  return { resources: names.map((filename) => ({ folder: 'models', filename })) };
}

async function run(downloads: FakeDownloads, ...names: string[]) {
  return await context.run(
    createPrefetchProvider({ upstream: loggedIn, downloads, prefetchOutageMs: 1000 }),
    parameters(...names),
  );
}

/** The failure after which a part of the work is done. */
async function partialFailure(downloads: FakeDownloads, ...names: string[]): Promise<PartialResultError> {
  try {
    await run(downloads, ...names);
  } catch (error) {
    if (error instanceof PartialResultError) return error;
    throw error;
  }
  return assert.fail('it did not fail');
}

describe('prefetch', () => {
  it('tells of each resource what became of it, and reports the bytes that were missing', async () => {
    const downloads = new FakeDownloads({ cached: [{ length: 70, isCached: true }], fetched: [{ length: 100 }] });
    const names = ['cached', 'fetched', 'missing'];
    const failure = await partialFailure(downloads, ...names, ...names);
    assert.equal(failure.code, 'prefetch_incomplete');
    assert.deepEqual(failure.result, {
      resources: [
        { folder: 'models', filename: 'cached', status: 'cached', bytes: 70, error: null, code: null },
        { folder: 'models', filename: 'fetched', status: 'fetched', bytes: 100, error: null, code: null },
        {
          folder: 'models',
          filename: 'missing',
          status: 'failed',
          bytes: 0,
          error: 'There is none.',
          code: 'resource_not_in_cdn',
        },
      ],
    });
    assert.deepEqual(context.reports.at(-1), { bytesDone: 100, bytesTotal: 100, waitingFor: null });
    assert.equal(context.lines.length, 3);
  });

  it('asks for each resource once, and fetches what is not cached once', async () => {
    const names = Array.from({ length: 40 }, (_, index) => `m${index}`);
    const downloads = new FakeDownloads(
      Object.fromEntries(names.map((name, index) => [name, [{ length: 10, isCached: index % 4 === 0 }]])),
    );
    await run(downloads, ...names);
    assert.deepEqual(downloads.asked.toSorted(), names.toSorted());
    assert.deepEqual(
      downloads.fetched,
      names.filter((_, index) => index % 4 !== 0),
    );
    assert.deepEqual(context.reports.at(-1), { bytesDone: 300, bytesTotal: 300, waitingFor: null });
  });

  it('knows the total before the first byte is fetched', async () => {
    await run(new FakeDownloads({ a: [{ length: 100 }], b: [{ length: 200 }] }), 'a', 'b');
    const first = context.reports.find(({ bytesDone }) => bytesDone > 0);
    assert.equal(first?.bytesTotal, 300);
  });

  it('asks again for a resource that has changed since, once, and fetches its successor', async () => {
    const downloads = new FakeDownloads({
      a: [{ length: 100, failure: changed() }, { length: 150 }],
      b: [{ length: 9 }],
    });
    const result = await run(downloads, 'a', 'b');
    assert.partialDeepStrictEqual(result, { resources: [{ status: 'fetched', bytes: 150 }, { status: 'fetched' }] });
    assert.deepEqual(downloads.asked, ['a', 'b', 'a']);
    assert.deepEqual(context.reports.at(-1), { bytesDone: 159, bytesTotal: 159, waitingFor: null });
  });

  it('gives up a resource that has changed twice', async () => {
    const downloads = new FakeDownloads({ a: [{ length: 100, failure: changed() }] });
    const failure = await partialFailure(downloads, 'a');
    assert.partialDeepStrictEqual(failure.result, { resources: [{ status: 'failed', code: 'cdn_object_changed' }] });
    assert.deepEqual(downloads.asked, ['a', 'a']);
  });

  it('does not ask again after another failure, which stops no other resource', async () => {
    const denied = new LoaderError('cdn_access_denied', 'no');
    const downloads = new FakeDownloads({ a: [{ length: 100, failure: denied }], b: [{ length: 9 }] });
    const failure = await partialFailure(downloads, 'a', 'b');
    assert.partialDeepStrictEqual(failure.result, {
      resources: [{ status: 'failed', code: 'cdn_access_denied' }, { status: 'fetched' }],
    });
    assert.deepEqual(downloads.asked, ['a', 'b']);
    assert.deepEqual(context.reports.at(-1), { bytesDone: 9, bytesTotal: 9, waitingFor: null });
  });

  it('says what it waits for, in its progress and its log, until it goes on', async () => {
    const failure = new PassingError('cdn_unreachable', 'The CDN gave no answer.');
    const downloads = {
      prefetch: (_resource: unknown, _signal: AbortSignal, patience: Patience) => {
        assert.deepEqual([patience.limitMs, patience.setting], [1000, 'PREFETCH_OUTAGE_MS']);
        patience.onWait?.(failure);
        patience.onWait?.(failure);
        assert.equal(context.reports.at(-1)?.waitingFor, 'models/a: The CDN gave no answer.');
        patience.onWait?.(undefined);
        assert.equal(context.reports.at(-1)?.waitingFor, null);
        return Promise.resolve({ length: 2, isCached: false, run });
      },
    };
    async function* run(): AsyncGenerator<WriteProgress, void, undefined> {
      await Promise.resolve();
      yield { bytes: 1, waitsFor: failure };
      assert.equal(context.reports.at(-1)?.waitingFor, 'models/a: The CDN gave no answer.');
      yield { bytes: 2, waitsFor: undefined };
    }
    await context.run(
      createPrefetchProvider({ upstream: loggedIn, downloads, prefetchOutageMs: 1000 }),
      parameters('a'),
    );
    assert.equal(context.reports.at(-1)?.waitingFor, null);
    assert.deepEqual(context.lines, [
      'models/a: The CDN gave no answer. It is tried again.',
      'models/a: it goes on',
      'models/a: The CDN gave no answer. It is tried again.',
      'models/a: it goes on',
      'models/a: fetched, 2 bytes',
    ]);
  });

  it('stops with the reason of its signal, and asks for nothing more', async () => {
    const abort = new AbortController();
    const reason = new Error('told to');
    context = new RecordedContext({ signal: abort.signal });
    context.report = ({ bytesDone }) => {
      if (bytesDone > 0) abort.abort(reason);
    };
    const names = ['a', 'b', 'c', 'd', 'e'];
    const downloads = new FakeDownloads(Object.fromEntries(names.map((name) => [name, [{ length: 100 }]])));
    await assert.rejects(run(downloads, ...names), reason);
    assert.deepEqual(downloads.asked, names);
    assert.deepEqual(downloads.fetched, ['a', 'b', 'c']);
  });

  it('fails at once when no user is logged in, but waits for the first login when it runs unattended', async () => {
    const login = Promise.withResolvers<undefined>();
    const notLoggedIn = (): Promise<unknown> =>
      Promise.reject(new LoaderError('not_authenticated', 'No user is logged in.'));
    const upstream = { isAuthenticated: false, authenticated: () => login.promise, session: notLoggedIn };
    const downloads = new FakeDownloads({ a: [{ length: 10 }] });
    const provider = createPrefetchProvider({ upstream, downloads, prefetchOutageMs: 1000 });
    await assert.rejects(context.run(provider, parameters('a')), { code: 'not_authenticated' });
    assert.deepEqual(downloads.asked, []);
    const waiting = new RecordedContext({ isUnattended: true }).run(provider, parameters('a'));
    assert.deepEqual(downloads.asked, []);
    upstream.session = () => Promise.resolve(undefined);
    login.resolve(undefined);
    assert.partialDeepStrictEqual(await waiting, { resources: [{ status: 'fetched' }] });
  });
});
