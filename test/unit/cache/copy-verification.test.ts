import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { CHUNK_LENGTH } from '../../../src/manifest/chunk-digester.ts';
import type { Verdict } from '../../../src/cache/copy-verification.ts';
import { LoaderError } from '../../../src/errors.ts';
import { CacheFolder, digestsOf } from '../../support/cache-folder.ts';
import { HookedFs, systemError } from '../../../lab/faults/hooked-fs.ts';
import { NEVER } from '../../../src/async/abort.ts';
import { eventually } from '../../../lab/waiting.ts';

const PART = { folder: 'models', name: 'm' };
const MIB = 1024 * 1024;
/** Three chunks and a bit. */
const LARGE = randomBytes(3 * CHUNK_LENGTH + 5);
/** One chunk and a bit. */
const CONTENT = LARGE.subarray(2 * CHUNK_LENGTH);

const hookedFs = new HookedFs();
let folder: CacheFolder;

beforeEach(async () => {
  folder = await CacheFolder.create();
});

afterEach(async () => {
  await using _removal = { [Symbol.asyncDispose]: () => folder.remove() };
  hookedFs.restore();
});

/** The outcome, and what `onBytes` was told. */
async function verify(file = 'm.big'): Promise<{ outcome: Verdict; bytes: number[] }> {
  const bytes: number[] = [];
  const outcome = await folder.cache.verify(await folder.entry(file), {
    signal: NEVER,
    onBytes: (count) => bytes.push(count),
  });
  return { outcome, bytes };
}

const outcomeOf = async (file?: string) => (await verify(file)).outcome;
const digests = async () => (await folder.record())?.chunks;

/** A copy as another program puts it there. */
async function place(content: Buffer): Promise<void> {
  await mkdir(folder.path(''), { recursive: true });
  await writeFile(folder.path('m.big'), content);
}

describe('a copy without a record', () => {
  for (const length of [0, 1, CHUNK_LENGTH - 1, CHUNK_LENGTH, CHUNK_LENGTH + 1, 2 * CHUNK_LENGTH, LARGE.length]) {
    it(`gets the digests of its chunks, at ${length} bytes, and is good by them`, async () => {
      const content = LARGE.subarray(0, length);
      await place(content);
      const { outcome, bytes } = await verify();
      assert.equal(outcome, 'recorded');
      assert.equal(bytes.length, Math.ceil(length / CHUNK_LENGTH));
      assert.equal(
        bytes.reduce((sum, count) => sum + count, 0),
        length,
      );
      assert.deepEqual(await folder.record(), {
        bigLength: length,
        smallSha256: undefined,
        chunks: digestsOf(content),
      });
      assert.equal(await outcomeOf(), 'good');
    });
  }

  it('gets one in the background when it is loaded, and the load does not wait for it', async () => {
    await place(CONTENT);
    const gate = Promise.withResolvers<undefined>();
    const reading = holdReads(gate.promise);
    await (await folder.cache.open(PART))?.handle.close();
    await reading;
    assert.deepEqual(await folder.names(), ['m.big']);
    gate.resolve(undefined);
    await eventually(() => folder.has('m.big.dsse'));
    assert.deepEqual(await digests(), digestsOf(CONTENT));
  });

  it('gets none where it was removed meanwhile', async () => {
    await place(CONTENT);
    const gate = Promise.withResolvers<undefined>();
    const reading = holdReads(gate.promise);
    await (await folder.cache.open(PART))?.handle.close();
    await reading;
    await folder.cache.remove(PART);
    gate.resolve(undefined);
    await eventually(async () => (await folder.openFiles()).length === 0);
    assert.deepEqual(await folder.names(), []);
    assert.deepEqual(await folder.names('.parts').catch(() => []), []);
  });

  it('is bad when it is cut while it is read, or a block of it can not be read', async () => {
    for (const fault of [() => truncate(folder.path('m.big')), () => Promise.reject(systemError('EIO'))]) {
      await place(CONTENT);
      hookedFs.beforeHandle('read', folder.path('m.big'), fault);
      assert.equal(await outcomeOf(), 'bad');
      assert.deepEqual(await folder.names(), ['m.big.bad']);
      hookedFs.restore();
    }
  });

  it('that can not be digested is a warning, and the next one gets its record', async () => {
    const warn = mock.method(folder.logger, 'warn');
    await place(CONTENT);
    hookedFs.beforeHandle('read', folder.path('m.big'), () => {
      throw systemError('ENOMEM');
    });
    await (await folder.cache.open(PART))?.handle.close();
    await eventually(() => warn.mock.callCount() === 1);
    hookedFs.restore();
    await (await folder.cache.open(PART))?.handle.close();
    await eventually(() => folder.has('m.big.dsse'));
    mock.restoreAll();
  });
});

/** Lets the reading of copies wait for `gate`. Ends when the first read waits. */
async function holdReads(gate: Promise<unknown>): Promise<void> {
  const { promise: waiting, resolve } = Promise.withResolvers<undefined>();
  hookedFs.beforeHandle('read', /\.big$/, () => {
    resolve(undefined);
    return gate;
  });
  await waiting;
}

describe('a copy that is verified', () => {
  for (const position of [
    0,
    CHUNK_LENGTH - 1,
    CHUNK_LENGTH,
    2 * CHUNK_LENGTH + 77,
    3 * CHUNK_LENGTH,
    LARGE.length - 1,
  ]) {
    it(`has one damaged chunk when the byte at ${position} has changed, and stays`, async () => {
      await folder.publish(PART, LARGE);
      await folder.flip('m.big', position);
      const { outcome, bytes } = await verify();
      assert.deepEqual(outcome, { damaged: [Math.floor(position / CHUNK_LENGTH)] });
      assert.equal(bytes.length, 4);
      assert.deepEqual(await folder.names(), ['m.big', 'm.big.dsse']);
      await folder.closed();
    });
  }

  it('has damaged chunks from where it was cut', async () => {
    for (const length of [0, 5, CHUNK_LENGTH]) {
      await folder.publish(PART, CONTENT);
      await truncate(folder.path('m.big'), length);
      assert.deepEqual(await outcomeOf(), { damaged: length < CHUNK_LENGTH ? [0, 1] : [1] });
    }
  });

  it('is bad when it is longer than it was', async () => {
    await folder.publish(PART, 'content');
    await writeFile(folder.path('m.big'), 'content and more');
    assert.equal(await outcomeOf(), 'bad');
  });

  it('has a damaged chunk where it is cut while it is read, or a block can not be read', async () => {
    for (const fault of [() => truncate(folder.path('m.big')), () => Promise.reject(systemError('EIO'))]) {
      await folder.publish(PART, CONTENT);
      hookedFs.beforeHandle('read', folder.path('m.big'), fault);
      assert.deepEqual(await outcomeOf(), { damaged: [0, 1] });
      hookedFs.restore();
    }
  });

  it('is bad when its record is damaged', async () => {
    await folder.publish(PART, CONTENT);
    await writeFile(folder.path('m.big.dsse'), '{"payloadType":"app');
    assert.equal(await outcomeOf(), 'bad');
    assert.deepEqual(await folder.names(), ['m.big.bad']);
  });

  it('keeps the time at which it was last loaded', async () => {
    await folder.publish(PART, CONTENT);
    await utimes(folder.path('m.big'), 1000, 1000);
    assert.equal(await outcomeOf(), 'good');
    await rm(folder.path('m.big.dsse'));
    assert.equal(await outcomeOf(), 'recorded');
    assert.equal((await folder.entry('m.big')).loadedAtMs, 1_000_000);
  });

  it('is bad when its record is a symbolic link, whose target is not touched', async () => {
    await folder.publish(PART, CONTENT);
    const target = path.join(folder.base, 'target');
    await rename(folder.path('m.big.dsse'), target);
    const text = await readFile(target, 'utf8');
    await symlink(target, folder.path('m.big.dsse'));
    assert.equal(await outcomeOf(), 'bad');
    assert.equal(await readFile(target, 'utf8'), text);
  });

  it('is absent when it is gone, with its folder or without', async () => {
    await folder.publish(PART, 'content');
    const entry = await folder.entry('m.big');
    const options = { signal: NEVER, onBytes: () => assert.fail('there is nothing to read') };
    await rm(folder.path('m.big'));
    assert.equal(await folder.cache.verify(entry, options), 'absent');
    await rm(folder.path(''), { recursive: true });
    assert.equal(await folder.cache.verify(entry, options), 'absent');
  });

  /** Verifies it, and puts another file in its place when the first chunk was read. */
  async function verifyReplaced(): Promise<Verdict> {
    await writeFile(folder.path('next'), 'another version');
    return await folder.cache.verify(await folder.entry('m.big'), {
      signal: NEVER,
      onBytes: () => renameSync(folder.path('next'), folder.path('m.big')),
    });
  }

  it('is absent when it is replaced meanwhile: whether it was good, bad or of unknown digests', async () => {
    const content = CONTENT.subarray(0, CHUNK_LENGTH);
    for (const prepare of [
      () => Promise.resolve(),
      () => folder.flip('m.big', 5),
      () => rm(folder.path('m.big.dsse')),
    ]) {
      await folder.publish(PART, content);
      await prepare();
      const before = await folder.names();
      assert.equal(await verifyReplaced(), 'absent');
      assert.equal(await readFile(folder.path('m.big'), 'utf8'), 'another version');
      assert.deepEqual(await folder.names(), before);
      await rm(folder.path('m.big'));
    }
  });

  it('may be published, held, loaded and removed meanwhile', { timeout: 10_000 }, async () => {
    await folder.publish(PART, CONTENT);
    const entry = await folder.entry('m.big');
    const gate = Promise.withResolvers<undefined>();
    const reading = holdReads(gate.promise);
    const verifying = folder.cache.verify(entry, { signal: NEVER, onBytes: () => undefined });
    await reading;
    hookedFs.restore();
    assert.equal((await folder.entries()).length, 1);
    await (await folder.cache.open(PART))?.handle.close();
    assert.equal(await folder.cache.removeUnlessHeld(entry), 'removed');
    await folder.publishOnly(PART, CONTENT);
    gate.resolve(undefined);
    assert.equal(await verifying, 'absent');
  });

  for (const code of ['EMFILE', 'ENFILE', 'ENOMEM']) {
    it(`says nothing of itself when it can not be opened or read for ${code}`, async () => {
      await folder.publish(PART, CONTENT);
      const expected = {
        name: 'LoaderError',
        code: 'cache_unusable',
        message: `The cache could not be read (${code}).`,
      };
      const before = await folder.names();
      for (const file of ['m.big', 'm.big.dsse']) {
        hookedFs.before('open', folder.path(file), () => {
          throw systemError(code);
        });
        await assert.rejects(outcomeOf(), expected);
        hookedFs.restore();
      }
      hookedFs.beforeHandle('read', folder.path('m.big'), () => {
        throw systemError(code);
      });
      await assert.rejects(outcomeOf(), expected);
      assert.deepEqual(await folder.names(), before);
      await folder.closed();
    });
  }

  it('says nothing of itself when its record can not be written', async () => {
    await place(CONTENT);
    hookedFs.before('rename', /\.part$/, () => {
      throw systemError('EACCES');
    });
    await assert.rejects(outcomeOf(), { code: 'cache_unusable' });
    hookedFs.restore();
    assert.deepEqual(await folder.names(), ['m.big']);
    assert.deepEqual(await folder.names('.parts'), []);
  });

  it('is in the way when it is none and can not be set aside: that is told, since it is still there', async () => {
    await folder.publish(PART, CONTENT);
    await writeFile(folder.path('m.big.dsse'), 'x');
    hookedFs.before('rename', folder.path('m.big'), () => {
      throw systemError('EACCES');
    });
    await assert.rejects(outcomeOf(), { name: 'LoaderError', code: 'cache_unusable' });
    assert.ok(await folder.has('m.big'));
    await folder.closed();
  });

  it('gets no digests behind a link that took the place of its folder meanwhile', async () => {
    await folder.publish(PART, CONTENT);
    await rm(folder.path('m.big.dsse'));
    const outside = path.join(folder.base, 'outside');
    const verifying = folder.cache.verify(await folder.entry('m.big'), {
      signal: NEVER,
      onBytes: () => {
        if (existsSync(outside)) return;
        renameSync(folder.path(''), outside);
        symlinkSync(outside, path.join(folder.root, 'models'));
      },
    });
    await assert.rejects(verifying, { code: 'cache_unusable' });
    assert.deepEqual((await readdir(outside)).sort(), ['m.big']);
  });

  it('is left at once when nobody wants to know any more, with the reason, and closed', async () => {
    await folder.publish(PART, LARGE);
    // Also where the reason looks like a fault of the copy.
    for (const reason of [new Error('no longer wanted'), new LoaderError('cache_unusable', 'no longer wanted')]) {
      const abort = new AbortController();
      let chunks = 0;
      const verifying = folder.cache.verify(await folder.entry('m.big'), {
        signal: abort.signal,
        onBytes: () => {
          if (++chunks === 2) abort.abort(reason);
        },
      });
      await assert.rejects(verifying, reason);
      assert.equal(chunks, 2);
      await assert.rejects(
        folder.cache.verify(await folder.entry('m.big'), { signal: abort.signal, onBytes: () => undefined }),
        reason,
      );
      await folder.closed();
      assert.deepEqual(await folder.names(), ['m.big', 'm.big.dsse']);
    }
  });

  it('is no file that was set aside', async () => {
    await folder.publish(PART, 'content');
    await folder.cache.setAside(PART, new Error('x'));
    await assert.rejects(verify('m.big.bad'), /only copies/);
  });

  it(
    'of 100 MB leaves the event loop free, and takes no more memory than a few chunks',
    { timeout: 60_000 },
    async () => {
      await mkdir(folder.path(''), { recursive: true });
      writeFileSync(folder.path('m.big'), '');
      await truncate(folder.path('m.big'), 100_000_000);
      const entry = await folder.entry('m.big');
      const before = process.memoryUsage();
      const delay = monitorEventLoopDelay({ resolution: 1 });
      let mostBuffers = 0;
      let mostRss = 0;
      const options = {
        signal: NEVER,
        onBytes: () => {
          const { arrayBuffers, rss } = process.memoryUsage();
          mostBuffers = Math.max(mostBuffers, arrayBuffers);
          mostRss = Math.max(mostRss, rss);
        },
      };
      delay.enable();
      assert.equal(await folder.cache.verify(entry, options), 'recorded');
      assert.equal(await folder.cache.verify(entry, options), 'good');
      delay.disable();
      assert.ok(delay.percentile(99) < 50e6, `the event loop was held up for ${delay.percentile(99) / 1e6} ms`);
      assert.ok(
        mostBuffers - before.arrayBuffers < 9 * MIB,
        `${(mostBuffers - before.arrayBuffers) / MIB} MiB of buffers`,
      );
      assert.ok(mostRss - before.rss < 64 * MIB, `${(mostRss - before.rss) / MIB} MiB of memory`);
      const left = process.memoryUsage().arrayBuffers - before.arrayBuffers;
      assert.ok(left < MIB, `${left / MIB} MiB of buffers are left`);
    },
  );
});
