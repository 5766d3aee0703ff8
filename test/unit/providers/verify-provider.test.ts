import assert from 'node:assert/strict';
import type { WriteProgress } from '../../../src/resources/written-ranges.ts';
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { BigPartCache } from '../../../src/cache/big-part-cache.ts';
import { LoaderError } from '../../../src/errors.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { createVerifyProvider } from '../../../src/providers/verify-provider.ts';
import { RecordedContext } from '../../support/task-context.ts';

let folder = '';
let cache: BigPartCache;
let context: RecordedContext;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-providers-'));
  cache = new BigPartCache(folder, path.join(folder, 'state'), createLogger({ level: 'silent' }));
  context = new RecordedContext();
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function addCopy(name: string, length: number): Promise<void> {
  await mkdir(path.join(folder, 'models'), { recursive: true });
  const file = path.join(folder, 'models', `${name}.big`);
  await writeFile(file, Buffer.alloc(length, name));
}

async function cachedFiles(): Promise<string[]> {
  const entries = await Array.fromAsync(cache.list(NEVER));
  return entries.map(({ file }) => file).sort();
}

function notLoggedIn(): Promise<never> {
  return Promise.reject(new LoaderError('not_authenticated', 'No user is logged in.'));
}

const NOT_LOGGED_IN = { mend: notLoggedIn, prefetch: notLoggedIn };

describe('verify', () => {
  const fetched: string[] = [];
  /** Whether the copy is of the version that the CDN has. */
  let isCached: boolean;
  /** Called with the chunks of a copy that are to be mended. */
  let mend: (name: string, chunks: readonly number[]) => Promise<void>;
  const downloads = {
    mend: async ({ name }: { name: string }, chunks: readonly number[]) => await mend(name, chunks),
    prefetch: ({ name }: { name: string }) => {
      async function* run(): AsyncGenerator<WriteProgress, void, undefined> {
        await Promise.resolve();
        fetched.push(name);
        yield { bytes: 5_000_000, waitsFor: undefined };
      }
      return Promise.resolve({ isCached, run });
    },
  };

  beforeEach(async () => {
    fetched.length = 0;
    isCached = true;
    mend = () => Promise.resolve();
    await addCopy('one', 5_000_000);
    await addCopy('two', 1_000);
  });

  it('digests what has no digests, and finds it good the next time', async () => {
    const provider = createVerifyProvider({ cache, downloads });
    assert.partialDeepStrictEqual(await context.run(provider, {}), { recorded: 2, good: 0, bad: 0 });
    assert.deepEqual(context.reports.at(-1), { bytesDone: 5_001_000, bytesTotal: 5_001_000 });
    assert.partialDeepStrictEqual(await context.run(provider, {}), { recorded: 0, good: 2, bad: 0 });
  });

  it('tells how many copies of older Loaders are not known to be of the version of their small part', async () => {
    const result = await context.run(createVerifyProvider({ cache, downloads: NOT_LOGGED_IN }), {});
    assert.partialDeepStrictEqual(result, { recorded: 2, bad: 0, unproven: 2 });
  });

  it('fetches a copy again that is of another version than its small part', async () => {
    isCached = false;
    const result = await context.run(createVerifyProvider({ cache, downloads }), {});
    assert.deepEqual(fetched.toSorted(), ['one', 'two']);
    assert.partialDeepStrictEqual(result, {
      recorded: 0,
      bad: 2,
      unproven: 0,
      bad_copies: [{ mended: true }, { mended: true }],
    });
  });

  it('asks about no copy that is known to be a pair', async () => {
    for (const name of ['one', 'two']) {
      const bigLength = name === 'one' ? 5_000_000 : 1_000;
      const record = { version: 1, bigLength, smallSha256: 'ab'.repeat(32), isPair: true };
      await writeFile(path.join(folder, 'models', `${name}.big.json`), JSON.stringify(record));
    }
    isCached = false;
    const result = await context.run(createVerifyProvider({ cache, downloads }), {});
    assert.partialDeepStrictEqual(result, { recorded: 2, bad: 0, unproven: 0 });
    assert.deepEqual(fetched, []);
  });

  for (const isLoggedIn of [true, false]) {
    it(`leaves a damaged copy where it is, and ${isLoggedIn ? 'mends its chunks' : 'says why it is not mended'}`, async () => {
      const mended: [string, readonly number[]][] = [];
      mend = (name, chunks) => Promise.resolve(void mended.push([name, chunks]));
      const provider = createVerifyProvider({ cache, downloads: isLoggedIn ? downloads : NOT_LOGGED_IN });
      await context.run(provider, {});
      await truncate(path.join(folder, 'models', 'one.big'), 4_999_999);
      const result = await context.run(provider, {});
      assert.partialDeepStrictEqual(result, {
        good: 1,
        bad: 1,
        bad_copies: [{ file: 'one.big', mended: isLoggedIn, code: isLoggedIn ? null : 'not_authenticated' }],
      });
      assert.deepEqual(await cachedFiles(), ['one.big', 'two.big']);
      assert.deepEqual(mended, isLoggedIn ? [['one', [2]]] : []);
      assert.deepEqual(fetched, []);
    });
  }

  it('fetches a damaged copy whole when the CDN has another version by now', async () => {
    const provider = createVerifyProvider({ cache, downloads });
    await context.run(provider, {});
    await truncate(path.join(folder, 'models', 'one.big'), 4_999_999);
    mend = () => Promise.reject(new LoaderError('cdn_object_changed', 'It was replaced.'));
    assert.partialDeepStrictEqual(await context.run(provider, {}), { bad: 1, bad_copies: [{ mended: true }] });
    assert.deepEqual(fetched, ['one']);
  });

  it('sets aside what can be no copy, and fetches it again', async () => {
    const provider = createVerifyProvider({ cache, downloads });
    await context.run(provider, {});
    await writeFile(path.join(folder, 'models', 'one.big.dsse'), 'x');
    assert.partialDeepStrictEqual(await context.run(provider, {}), { bad: 1, bad_copies: [{ mended: true }] });
    assert.deepEqual(await cachedFiles(), ['one.big.bad', 'two.big']);
    assert.deepEqual(fetched, ['one']);
  });
});
