import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { FAKE_ETAG, BIG, DownloadLab, RECORD, RESOURCE, SMALL } from '../../support/download-lab.ts';

/** A small part of another version: of the same length, so that only its digest tells it from the right one. */
const OTHER_SMALL = Buffer.from(SMALL.map((byte, index) => (index === 100 ? byte ^ 1 : byte)));
const md5 = (bytes: Buffer) => createHash('md5').update(bytes).digest();
/** As a Loader of an earlier version has written it. */
const OLD_RECORD = { bigLength: RECORD.bigLength, smallSha256: RECORD.smallSha256 };

let lab: DownloadLab;

beforeEach(async () => {
  lab = await DownloadLab.create();
});

afterEach(async () => {
  await lab[Symbol.asyncDispose]();
});

const record = async () => await lab.folder.record();
const names = async () => (await lab.folder.names()).filter((name) => name.endsWith('.big'));

/** The ETag that an upload in parts gives the object. */
function etagOf(content: Buffer, partLength: number): string {
  const parts: Buffer[] = [];
  for (let start = 0; start < content.length; start += partLength) {
    parts.push(md5(content.subarray(start, start + partLength)));
  }
  return `"${md5(Buffer.concat(parts)).toString('hex')}-${parts.length}"`;
}

describe('a load while an upload is under way', () => {
  it('waits until both parts are of one version', async () => {
    lab.api.small = OTHER_SMALL;
    const loading = lab.load();
    await new Promise((resolve) => setTimeout(resolve, 300));
    lab.api.small = SMALL;
    assert.ok(await loading);
    assert.ok(lab.api.fetches >= 2);
  });

  it('fails with a code of its own when that goes on, and nothing is served or cached', async () => {
    lab.api.small = OTHER_SMALL;
    await assert.rejects(lab.downloads.open(RESOURCE, NEVER), { code: 'upload_unfinished', message: /models\/m/ });
    assert.ok(lab.api.fetches >= 4, 'it looked once only');
    assert.deepEqual(await names().catch(() => []), []);
  });

  it('ends at once when its client leaves', async () => {
    lab.api.small = OTHER_SMALL;
    const abort = new AbortController();
    setTimeout(() => abort.abort(new Error('gone')), 100);
    const beganAt = performance.now();
    await assert.rejects(lab.downloads.open(RESOURCE, abort.signal), { message: 'gone' });
    assert.ok(performance.now() - beganAt < 1_500);
  });

  it('does not look at the copy of the earlier version', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    lab.api.small = OTHER_SMALL;
    await assert.rejects(lab.downloads.open(RESOURCE, NEVER), { code: 'upload_unfinished' });
  });
});

describe('an object that names its small part', () => {
  it('makes a copy that is known to be a pair, and the CDN is not asked about that again', async () => {
    assert.ok(await lab.load());
    assert.partialDeepStrictEqual(await record(), { isPair: true, etag: FAKE_ETAG });
    assert.ok(await lab.load());
    assert.equal(lab.server.looks, 0);
    assert.equal(lab.api.fetches, 2);
  });
});

describe('an object of an older Loader', () => {
  beforeEach(() => {
    lab.server.smallSha256 = undefined;
  });

  it('is served and cached when the small part is still the same at its end', async () => {
    assert.ok(await lab.load());
    assert.deepEqual(await names(), ['m.big']);
    assert.notEqual((await record())?.isPair, true);
  });

  it('is neither served to its end nor cached when an upload has begun since', async () => {
    lab.server.beforeRest = () => {
      lab.api.small = OTHER_SMALL;
      return Promise.resolve();
    };
    await assert.rejects(lab.load(), { code: 'cdn_object_changed' });
    await lab.folder.closed();
    assert.deepEqual(await names().catch(() => []), []);
  });
});

describe('a copy of which no record says that it is a pair', () => {
  for (const [what, etag] of [
    ['in parts of 8 MiB', etagOf(BIG, 8 * 1024 * 1024)],
    ['in parts of 5 MiB', etagOf(BIG, 5 * 1024 * 1024)],
    ['in one piece', `"${md5(BIG).toString('hex')}"`],
  ] as const) {
    it(`is proven once by an object that was uploaded ${what}`, async () => {
      lab.server.smallSha256 = undefined;
      lab.server.etag = etag;
      await lab.folder.publish(RESOURCE, BIG, OLD_RECORD);
      assert.ok(await lab.load());
      assert.deepEqual([lab.server.looks, lab.server.ends], [1, 0]);
      assert.partialDeepStrictEqual(await record(), { isPair: true, etag });
      assert.ok(await lab.load());
      assert.equal(lab.server.looks, 1);
    });
  }

  it('is not used when the object is another: the right one takes its place', async () => {
    const mixture = Buffer.from(BIG);
    mixture.fill(7, 1_000_000, 2_000_000);
    await lab.folder.publish(RESOURCE, mixture, OLD_RECORD);
    assert.ok(await lab.load());
    await lab.folder.closed();
    assert.partialDeepStrictEqual(await record(), { isPair: true });
    lab.server.object = undefined;
    assert.ok(await lab.load());
  });

  it('is used as it is while the CDN can not be asked', async () => {
    lab.server.object = undefined;
    await lab.folder.publish(RESOURCE, BIG, OLD_RECORD);
    assert.ok(await lab.load());
    assert.notEqual((await record())?.isPair, true);
  });

  it('that was made of an object of an older Loader is looked at again later, when its upload has certainly ended', async () => {
    lab.server.smallSha256 = undefined;
    const madeAtMs = Date.now();
    await lab.folder.publish(RESOURCE, BIG, { ...OLD_RECORD, etag: FAKE_ETAG, madeAtMs });
    assert.ok(await lab.load());
    assert.notEqual((await record())?.isPair, true);
    await lab.folder.publish(RESOURCE, BIG, { ...OLD_RECORD, etag: FAKE_ETAG, madeAtMs: madeAtMs - 3_600_000 });
    assert.ok(await lab.load());
    assert.partialDeepStrictEqual(await record(), { isPair: true });
  });

  it('is not used once its object was replaced', async () => {
    lab.server.smallSha256 = undefined;
    await lab.folder.publish(RESOURCE, BIG, { ...OLD_RECORD, etag: `"${'0'.repeat(32)}"`, madeAtMs: Date.now() });
    assert.ok(await lab.load());
    assert.equal(lab.server.ends, 1);
  });
});
