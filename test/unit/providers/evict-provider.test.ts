import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { BigPartCache } from '../../../src/cache/big-part-cache.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { createEvictProvider } from '../../../src/providers/evict-provider.ts';
import { RecordedContext } from '../../support/task-context.ts';

const DAY_S = 24 * 60 * 60;
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

async function addCopy(name: string, length: number, ageDays: number): Promise<void> {
  await mkdir(path.join(folder, 'models'), { recursive: true });
  const file = path.join(folder, 'models', `${name}.big`);
  await writeFile(file, Buffer.alloc(length, name));
  const seconds = Date.now() / 1000 - ageDays * DAY_S;
  await utimes(file, seconds, seconds);
}

async function cachedFiles(): Promise<string[]> {
  const entries = await Array.fromAsync(cache.list(NEVER));
  return entries.map(({ file }) => file).sort();
}

describe('evict', () => {
  beforeEach(async () => {
    await addCopy('old', 1_000, 40);
    await addCopy('middle', 2_000, 20);
    await addCopy('new', 3_000, 0);
  });

  it('removes what was not loaded for so many days', async () => {
    const result = await context.run(createEvictProvider(cache), { max_age_days: 30 });
    assert.deepEqual(await cachedFiles(), ['middle.big', 'new.big']);
    assert.partialDeepStrictEqual(result, { files_removed: 1, bytes_removed: 1_000, bytes_left: 5_000 });
    assert.deepEqual(context.reports, [{ bytesDone: 1_000, bytesTotal: 1_000 }]);
  });

  it('removes the oldest until no more than so many bytes are left, but nothing that is being read', async () => {
    using _hold = cache.hold({ folder: 'models', name: 'old' });
    const result = await context.run(createEvictProvider(cache), { max_bytes: 4_500 });
    assert.deepEqual(await cachedFiles(), ['new.big', 'old.big']);
    assert.partialDeepStrictEqual(result, { files_removed: 1, files_held: 1, bytes_left: 4_000 });
  });

  it('stops between two files when it is told to', async () => {
    const abort = new AbortController();
    const stopping = new RecordedContext({ signal: abort.signal });
    stopping.report = () => abort.abort(new Error('told to'));
    await assert.rejects(stopping.run(createEvictProvider(cache), { max_bytes: 0 }), /told to/);
    assert.deepEqual(await cachedFiles(), ['middle.big', 'new.big']);
  });
});
