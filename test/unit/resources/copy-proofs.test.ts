import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, open, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import type { CopyRecord } from '../../../src/cache/copy-record.ts';
import type { ObjectVersion } from '../../../src/cdn/s3-cdn-manager.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { CopyProofs, type CopyToProve } from '../../../src/resources/copy-proofs.ts';
import { makeVersion } from '../../support/upload-lab.ts';

const CONTENT = randomBytes(1_000);
const SMALL_SHA256 = 'ab'.repeat(32);
const MINUTE_MS = 60_000;
const md5 = (content: Buffer) => createHash('md5').update(content).digest('hex');
/** The object of this copy, as an older Loader has made it. */
const OBJECT = makeVersion({ etag: `"${md5(CONTENT)}"`, length: CONTENT.length });

let folder: string;
let handle: FileHandle;
let looks = 0;
let version: ObjectVersion | undefined;
/** Called before the CDN answers. */
let beforeAnswer: (signal: AbortSignal) => Promise<void>;
const marked: unknown[] = [];
let proofs: CopyProofs;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-proofs-'));
  await writeFile(path.join(folder, 'm.big'), CONTENT);
  handle = await open(path.join(folder, 'm.big'));
  [looks, version] = [0, OBJECT];
  beforeAnswer = () => Promise.resolve();
  marked.length = 0;
  const cache = {
    markPair: (_part: unknown, _copy: unknown, pair: unknown) => Promise.resolve(void marked.push(pair)),
  };
  proofs = new CopyProofs({ cache, logger: createLogger({ level: 'silent' }) });
});

afterEach(async () => {
  await handle.close();
  await rm(folder, { recursive: true });
});

function subject(record?: Partial<CopyRecord>, inode = 1n): CopyToProve {
  const full = { bigLength: CONTENT.length, smallSha256: SMALL_SHA256, ...record };
  return {
    resource: { folder: 'models', name: 'm' },
    copy: {
      handle,
      inode,
      length: CONTENT.length,
      record: record === undefined ? undefined : full,
      isRecorded: true,
      [Symbol.asyncDispose]: () => Promise.resolve(),
    },
    smallSha256: SMALL_SHA256,
    cdn: {
      lookAt: async (_folder, _name, signal) => {
        looks++;
        await beforeAnswer(signal);
        return version;
      },
    },
  };
}

const mayBeUsed = async (of = subject(), signal = NEVER) => await proofs.mayBeUsed(of, signal);

describe('a copy without a record of its pair', () => {
  it('is proven by the ETag of its bytes', async () => {
    assert.equal(await mayBeUsed(), true);
    assert.deepEqual(marked, [{ smallSha256: SMALL_SHA256, etag: OBJECT.etag }]);
  });

  it('is not used when its object names another small part, even where its bytes are those of the object', async () => {
    version = { ...OBJECT, smallSha256: 'cd'.repeat(32) };
    assert.equal(await mayBeUsed(), false);
    assert.deepEqual(marked, []);
  });

  for (const [what, changed] of [
    ['another length', { length: CONTENT.length + 1 }],
    ['the ETag of other bytes', { etag: `"${md5(Buffer.from('other'))}"` }],
    ['the ETag of other bytes in parts', { etag: `"${md5(Buffer.from('other'))}-1"` }],
    ['an ETag that says nothing of its bytes', { etag: '"opaque"' }],
  ] as const) {
    it(`is not used when its object has ${what}`, async () => {
      version = { ...OBJECT, ...changed };
      assert.equal(await mayBeUsed(), false);
    });
  }

  it('is compared once by loads that come together', async () => {
    version = undefined;
    assert.deepEqual(await Promise.all([mayBeUsed(), mayBeUsed(), mayBeUsed()]), [true, true, true]);
    assert.equal(looks, 1);
  });

  it('that the CDN did not prove is used, and the CDN is asked again after ten minutes', async (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: 1e12 });
    version = undefined;
    for (const [atMinutes, expected] of [
      [0, 1],
      [9, 1],
      [11, 2],
    ] as const) {
      t.mock.timers.setTime(1e12 + atMinutes * MINUTE_MS);
      assert.equal(await mayBeUsed(), true);
      assert.equal(looks, expected);
    }
  });

  it('is asked about again when the clock was set back, and when another file has its name', async (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: 1e12 });
    version = undefined;
    await mayBeUsed();
    await mayBeUsed(subject(undefined, 2n));
    assert.equal(looks, 2);
    t.mock.timers.setTime(1e12 - 60 * MINUTE_MS);
    await mayBeUsed();
    assert.equal(looks, 3);
  });

  it('is used after two seconds when the CDN does not answer', { timeout: 20_000 }, async () => {
    beforeAnswer = async (signal) => {
      await new Promise((_resolve, reject) =>
        signal.addEventListener('abort', () => reject(new Error('the look has ended'))),
      );
    };
    assert.equal(await mayBeUsed(), true);
    assert.deepEqual(marked, []);
  });

  it('is not looked at any longer when the client leaves', async () => {
    const leaving = new AbortController();
    beforeAnswer = () => {
      leaving.abort(new Error('gone'));
      return Promise.reject(new Error('the look has ended'));
    };
    await assert.rejects(mayBeUsed(subject(), leaving.signal), { message: 'gone' });
  });

  it('is not read any longer when the client leaves', async () => {
    const leaving = new AbortController();
    beforeAnswer = () => {
      leaving.abort(new Error('gone'));
      return Promise.resolve();
    };
    await assert.rejects(mayBeUsed(subject(), leaving.signal), { message: 'gone' });
  });
});

describe('a copy whose record has an ETag', () => {
  it('is a pair when the object has it and names the small part, however young the copy is', async () => {
    version = { ...OBJECT, etag: '"1"', smallSha256: SMALL_SHA256 };
    assert.equal(await mayBeUsed(subject({ etag: '"1"', madeAtMs: Date.now() })), true);
    assert.equal(marked.length, 1);
  });

  it('is not used when the object has another', async () => {
    assert.equal(await mayBeUsed(subject({ etag: '"1"' })), false);
  });

  it('is used, though not proven, where a weak or an opaque ETag of the object can not tell', async () => {
    for (const etag of [undefined, '"of another edge"']) {
      version = { ...OBJECT, etag };
      assert.equal(await mayBeUsed(subject({ etag: '"of one edge"' })), true);
      assert.deepEqual(marked, []);
    }
  });
});
