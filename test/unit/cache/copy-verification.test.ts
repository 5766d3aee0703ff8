import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { DIGEST_CHUNK_LENGTH } from '../../../src/cache/chunk-digests.ts';
import { LoaderError } from '../../../src/errors.ts';
import { CacheFolder } from '../../support/cache-folder.ts';
import { HookedFs, systemError } from '../../../lab/faults/hooked-fs.ts';
import { NEVER } from '../../../src/async/abort.ts';
import { eventually } from '../../../lab/waiting.ts';
import { sha256 } from '../../../lab/sha256.ts';

const PART = { folder: 'models', name: 'm' };
const MIB = 1024 * 1024;
/** Three chunks and a bit. */
const LARGE = randomBytes(3 * DIGEST_CHUNK_LENGTH + 5);
/** One chunk and a bit. */
const CONTENT = LARGE.subarray(2 * DIGEST_CHUNK_LENGTH);

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
async function verify(file = 'm.big'): Promise<{ outcome: string; bytes: number[] }> {
  const bytes: number[] = [];
  const outcome = await folder.cache.verify(await folder.entry(file), {
    signal: NEVER,
    onBytes: (count) => bytes.push(count),
  });
  return { outcome, bytes };
}

const outcomeOf = async (file?: string) => (await verify(file)).outcome;
const readDigests = async () => await readFile(folder.path('m.big.sums'), 'utf8');

/** By another way than the cache's. */
function digestsOf(content: Buffer): string {
  const chunkSha256: string[] = [];
  for (let start = 0; start < content.length; start += 4194304) {
    chunkSha256.push(sha256(content.subarray(start, start + 4194304)));
  }
  return JSON.stringify({ version: 1, bigLength: content.length, chunkLength: 4194304, chunkSha256 });
}

describe('the digests of a copy', () => {
  for (const length of [0, 1, 4194303, 4194304, 4194305, 2 * 4194304, 3 * 4194304 + 5]) {
    it(`are those of its chunks, at ${length} bytes, and it is good by them`, async () => {
      const content = LARGE.subarray(0, length);
      await folder.publish(PART, content);
      assert.equal(await readDigests(), digestsOf(content));
      const { outcome, bytes } = await verify();
      assert.equal(outcome, 'good');
      assert.equal(bytes.length, Math.ceil(length / 4194304));
      assert.equal(
        bytes.reduce((sum, count) => sum + count, 0),
        length,
      );
    });
  }

  it('are made anew for its successor', async () => {
    await folder.publish(PART, CONTENT);
    const successor = Buffer.from(CONTENT).reverse();
    await folder.publish(PART, successor);
    assert.equal(await readDigests(), digestsOf(successor));
  });

  it('are gone before the record of its successor is there', async () => {
    await folder.publish(PART, 'first');
    let looked = 0;
    hookedFs.before('rename', /\.part$/, async () => {
      // The record is the first unfinished file that is moved to its place, after the old file was taken away.
      if (looked++ === 0) assert.deepEqual(await folder.names(), ['m.big.json']);
    });
    await folder.publish(PART, 'second');
    assert.ok(looked > 0);
  });

  it('are gone with it, however it goes', async () => {
    await folder.publish(PART, 'content');
    await folder.cache.remove(PART);
    assert.deepEqual(await folder.names(), []);
    await folder.publish(PART, 'content');
    await folder.cache.removeUnlessHeld(await folder.entry('m.big'));
    assert.deepEqual(await folder.names(), []);
    await folder.publish(PART, 'content');
    await folder.cache.setAside(PART, new Error('x'));
    assert.deepEqual(await folder.names(), ['m.big.bad']);
  });

  it('are not waited for by who publishes', async () => {
    const gate = Promise.withResolvers<undefined>();
    const reading = holdReads(gate.promise);
    await folder.publishOnly(PART, CONTENT);
    await reading;
    assert.deepEqual(await folder.names(), ['m.big', 'm.big.json']);
    gate.resolve(undefined);
    await eventually(() => folder.has('m.big.sums'));
    assert.equal(await readDigests(), digestsOf(CONTENT));
  });

  it('are never those of a file that was replaced while they were made', async () => {
    const gate = Promise.withResolvers<undefined>();
    const reading = holdReads(gate.promise);
    await folder.publishOnly(PART, CONTENT);
    await reading;
    hookedFs.restore();
    const successor = Buffer.from(CONTENT).reverse();
    await folder.publishOnly(PART, successor);
    await sleep(50);
    assert.ok(!(await folder.has('m.big.sums')), 'two copies are digested at once');
    gate.resolve(undefined);
    await eventually(() => folder.has('m.big.sums'));
    assert.equal(await readDigests(), digestsOf(successor));
    assert.equal(await outcomeOf(), 'good');
  });

  it('are not written where the copy was removed meanwhile', async () => {
    const gate = Promise.withResolvers<undefined>();
    const reading = holdReads(gate.promise);
    await folder.publishOnly(PART, CONTENT);
    await reading;
    await folder.cache.remove(PART);
    gate.resolve(undefined);
    await eventually(async () => (await folder.openFiles()).length === 0);
    assert.deepEqual(await folder.names(), []);
    assert.deepEqual(await folder.names('.parts'), []);
  });

  it('are made of one copy at a time', async () => {
    let open = 0;
    let most = 0;
    hookedFs.onOpen(/\.big$/, (handle) => {
      most = Math.max(most, ++open);
      const close = handle.close.bind(handle);
      handle.close = async () => {
        await close();
        open--;
      };
    });
    const parts = Array.from({ length: 5 }, (_, index) => ({ folder: 'models', name: `m${index}` }));
    await Promise.all(parts.map((part) => folder.publish(part, CONTENT)));
    assert.equal(most, 1);
  });

  it('that can not be made are a warning, and those of the next copy are made', async () => {
    const warn = mock.method(folder.logger, 'warn');
    hookedFs.beforeHandle('read', folder.path('m.big'), () => {
      throw systemError('ENOMEM');
    });
    await folder.publishOnly(PART, CONTENT);
    await folder.publish({ folder: 'models', name: 'n' }, CONTENT);
    assert.equal(warn.mock.callCount(), 1);
    assert.deepEqual(await folder.names(), ['m.big', 'm.big.json', 'n.big', 'n.big.json', 'n.big.sums']);
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
  for (const position of [0, 4194303, 4194304, 2 * 4194304 + 77, 3 * 4194304, 3 * 4194304 + 4]) {
    it(`is bad when the byte at ${position} has changed, and is set aside`, async () => {
      await folder.publish(PART, LARGE);
      await folder.flip('m.big', position);
      const { outcome, bytes } = await verify();
      assert.equal(outcome, 'bad');
      assert.equal(bytes.length, Math.floor(position / 4194304) + 1);
      assert.deepEqual(await folder.names(), ['m.big.bad']);
      await folder.closed();
    });
  }

  it('is bad when it was cut, with its record or without', async () => {
    for (const length of [0, 5, 4194304]) {
      for (const hasRecord of [true, false]) {
        await folder.publish(PART, CONTENT);
        await truncate(folder.path('m.big'), length);
        if (!hasRecord) await rm(folder.path('m.big.json'));
        assert.equal(await outcomeOf(), 'bad');
        assert.ok(!(await folder.has('m.big')));
        assert.equal((await stat(folder.path('m.big.bad'))).size, length);
      }
    }
  });

  it('is bad when it is longer than it was', async () => {
    await folder.publish(PART, 'content');
    await rm(folder.path('m.big.json'));
    await writeFile(folder.path('m.big'), 'content and more');
    assert.equal(await outcomeOf(), 'bad');
  });

  it('is bad when it is cut while it is read', async () => {
    await folder.publish(PART, CONTENT);
    await rm(folder.path('m.big.sums'));
    hookedFs.beforeHandle('read', folder.path('m.big'), () => truncate(folder.path('m.big')));
    assert.equal(await outcomeOf(), 'bad');
    assert.deepEqual(await folder.names(), ['m.big.bad']);
  });

  it('is bad when a block of it can not be read', async () => {
    await folder.publish(PART, CONTENT);
    hookedFs.beforeHandle('read', folder.path('m.big'), () => {
      throw systemError('EIO');
    });
    assert.equal(await outcomeOf(), 'bad');
    assert.deepEqual(await folder.names(), ['m.big.bad']);
  });

  it('is bad when its record is damaged', async () => {
    await folder.publish(PART, CONTENT);
    await writeFile(folder.path('m.big.json'), '{"version":1,"bigLen');
    assert.equal(await outcomeOf(), 'bad');
    assert.deepEqual(await folder.names(), ['m.big.bad']);
  });

  it('keeps the time at which it was last loaded', async () => {
    await folder.publish(PART, CONTENT);
    await utimes(folder.path('m.big'), 1000, 1000);
    assert.equal(await outcomeOf(), 'good');
    await rm(folder.path('m.big.sums'));
    assert.equal(await outcomeOf(), 'recorded');
    assert.equal((await folder.entry('m.big')).loadedAtMs, 1_000_000);
  });

  it('gets digests when it has none, as one of an older Loader, and is good by them', async () => {
    await mkdir(folder.path(''), { recursive: true });
    await writeFile(folder.path('m.big'), LARGE);
    const { outcome, bytes } = await verify();
    assert.equal(outcome, 'recorded');
    assert.equal(bytes.length, 4);
    assert.equal(await readDigests(), digestsOf(LARGE));
    assert.equal(await outcomeOf(), 'good');
    await folder.flip('m.big', 7);
    assert.equal(await outcomeOf(), 'bad');
  });

  for (const [kind, change] of [
    ['no JSON', () => 'rubbish'],
    ['half of them', (text) => text.slice(0, text.length / 2)],
    ['empty', () => ''],
    ['null', () => 'null'],
    ['a list', () => '[]'],
    ['of another version', (text) => text.replace('"version":1', '"version":2')],
    ['of other chunks', (text) => text.replace('4194304', '4194305')],
    ['without a length', (text) => text.replace('bigLength', 'length')],
    ['one digest short', (text) => text.replace(/,"[^"]*"\]/, ']')],
    ['one digest long', (text) => text.replace(']', `,"${'0'.repeat(64)}"]`)],
    ['with half a digest', (text) => text.replace(/[\da-f]{32}"\]/, '"]')],
    ['with a digest of other letters', (text) => text.replace(/[\da-f]"\]/, 'x"]')],
    ['far too long', (text) => text + ' '.repeat(5 * MIB)],
  ] as const satisfies [string, (text: string) => string][]) {
    it(`gets new ones when its digests are ${kind}`, async () => {
      await folder.publish(PART, CONTENT);
      const changed = change(await readDigests());
      assert.notEqual(changed, await readDigests());
      await writeFile(folder.path('m.big.sums'), changed);
      assert.equal(await outcomeOf(), 'recorded');
      assert.equal(await readDigests(), digestsOf(CONTENT));
      assert.equal(await outcomeOf(), 'good');
    });
  }

  it('gets new ones when its digests are a symbolic link, whose target is not touched', async () => {
    await folder.publish(PART, CONTENT);
    const target = path.join(folder.base, 'target');
    await writeFile(target, digestsOf(CONTENT.subarray(1)));
    await rm(folder.path('m.big.sums'));
    await symlink(target, folder.path('m.big.sums'));
    assert.equal(await outcomeOf(), 'recorded');
    assert.equal(await readFile(target, 'utf8'), digestsOf(CONTENT.subarray(1)));
    assert.equal(await outcomeOf(), 'good');
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
  async function verifyReplaced(): Promise<string> {
    await writeFile(folder.path('next'), 'another version');
    return await folder.cache.verify(await folder.entry('m.big'), {
      signal: NEVER,
      onBytes: () => renameSync(folder.path('next'), folder.path('m.big')),
    });
  }

  it('is absent when it is replaced meanwhile: whether it was good, bad or of unknown digests', async () => {
    const content = CONTENT.subarray(0, DIGEST_CHUNK_LENGTH);
    for (const prepare of [
      () => Promise.resolve(),
      () => folder.flip('m.big', 5),
      () => rm(folder.path('m.big.sums')),
    ]) {
      await folder.publish(PART, content);
      await prepare();
      const hadDigests = await folder.has('m.big.sums');
      assert.equal(await verifyReplaced(), 'absent');
      assert.equal(await readFile(folder.path('m.big'), 'utf8'), 'another version');
      assert.equal(await folder.has('m.big.sums'), hadDigests);
      assert.ok(!(await folder.has('m.big.bad')));
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
    await eventually(() => folder.has('m.big.sums'));
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
      for (const file of ['m.big', 'm.big.json', 'm.big.sums']) {
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

  it('says nothing of itself when its new digests can not be written', async () => {
    await folder.publish(PART, CONTENT);
    await rm(folder.path('m.big.sums'));
    mkdirSync(folder.path('m.big.sums/in-the-way'), { recursive: true });
    await assert.rejects(outcomeOf(), { code: 'cache_unusable' });
    assert.deepEqual(await folder.names(), ['m.big', 'm.big.json', 'm.big.sums']);
    assert.deepEqual(await folder.names('.parts'), []);
  });

  it('is in the way when it is bad and can not be set aside: that is told, since it is still served', async () => {
    await folder.publish(PART, CONTENT);
    await folder.flip('m.big', 5);
    hookedFs.before('rename', folder.path('m.big'), () => {
      throw systemError('EACCES');
    });
    await assert.rejects(outcomeOf(), { name: 'LoaderError', code: 'cache_unusable' });
    assert.ok(await folder.has('m.big'));
    await folder.closed();
  });

  it('gets no digests behind a link that took the place of its folder meanwhile', async () => {
    await folder.publish(PART, CONTENT);
    await rm(folder.path('m.big.sums'));
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
    assert.deepEqual((await readdir(outside)).sort(), ['m.big', 'm.big.json']);
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
      assert.deepEqual(await folder.names(), ['m.big', 'm.big.json', 'm.big.sums']);
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
