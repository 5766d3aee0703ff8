import assert from 'node:assert/strict';
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
  cache = new BigPartCache(folder, createLogger({ level: 'silent' }));
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

describe('verify', () => {
  const fetched: string[] = [];
  const downloads = {
    prefetch: ({ name }: { name: string }) => {
      async function* run(): AsyncGenerator<number, void, undefined> {
        await Promise.resolve();
        fetched.push(name);
        yield 5_000_000;
      }
      return Promise.resolve({ run });
    },
  };

  beforeEach(async () => {
    fetched.length = 0;
    await addCopy('one', 5_000_000);
    await addCopy('two', 1_000);
  });

  it('digests what has no digests, and finds it good the next time', async () => {
    const provider = createVerifyProvider({ cache, downloads });
    assert.partialDeepStrictEqual(await context.run(provider, {}), { recorded: 2, good: 0, bad: 0 });
    assert.deepEqual(context.reports.at(-1), { bytesDone: 5_001_000, bytesTotal: 5_001_000 });
    assert.partialDeepStrictEqual(await context.run(provider, {}), { recorded: 0, good: 2, bad: 0 });
  });

  for (const isLoggedIn of [true, false]) {
    it(`sets a bad copy aside, and ${isLoggedIn ? 'fetches it again' : 'says why it is not mended'}`, async () => {
      const provider = createVerifyProvider({ cache, downloads: isLoggedIn ? downloads : { prefetch: notLoggedIn } });
      await context.run(provider, {});
      await truncate(path.join(folder, 'models', 'one.big'), 4_999_999);
      const result = await context.run(provider, {});
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
