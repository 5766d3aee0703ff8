import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isSameVersion, versionOf, type ObjectVersion } from '../../../src/cdn/object-version.ts';

const A = `"${'a'.repeat(32)}"`;
const B = `"${'b'.repeat(32)}-3"`;
const BARE: ObjectVersion = {
  etag: undefined,
  modifiedMs: undefined,
  versionId: undefined,
  length: 10,
  smallSha256: undefined,
  hasManifest: false,
};

describe('the version in an answer', () => {
  it('has what tells versions apart', () => {
    const LastModified = new Date(1_700_000_000_000);
    const answer = { ETag: A, LastModified, Metadata: { 'small-sha256': 'ab', manifest: '1' }, VersionId: 'v' };
    assert.deepEqual(versionOf(answer, 10), {
      etag: A,
      modifiedMs: 1_700_000_000_000,
      versionId: 'v',
      length: 10,
      smallSha256: 'ab',
      hasManifest: true,
    });
  });

  it('has no weak or empty ETag, no time that is none, and no version ID null', () => {
    for (const ETag of [`W/${A}`, '', undefined]) {
      const answer = { LastModified: new Date(NaN), VersionId: 'null', ...(ETag !== undefined && { ETag }) };
      assert.deepEqual(versionOf(answer, 10), BARE);
    }
  });

  it('has bounds', () => {
    assert.throws(() => versionOf({ ETag: `"${'x'.repeat(300)}"` }, 10), { code: 'cdn_invalid_response' });
    assert.throws(() => versionOf({}, 2 ** 53), { code: 'cdn_invalid_response' });
  });
});

describe('two answers', () => {
  const cases: readonly [what: string, one: Partial<ObjectVersion>, other: Partial<ObjectVersion>, isSame: boolean][] =
    [
      [
        'the small part says so, whatever the ETags',
        { smallSha256: 's', etag: A },
        { smallSha256: 's', etag: B },
        true,
      ],
      ['the small part says so, without ETags', { smallSha256: 's' }, { smallSha256: 's', modifiedMs: 1 }, true],
      ['the small part differs', { smallSha256: 's', etag: A }, { smallSha256: 't', etag: A }, false],
      ['the lengths differ', { smallSha256: 's' }, { smallSha256: 's', length: 11 }, false],
      ['the version ID says so', { versionId: '1', etag: A }, { versionId: '1', etag: B }, true],
      ['the version ID differs', { versionId: '1', modifiedMs: 1 }, { versionId: '2', modifiedMs: 1 }, false],
      ['the ETag says so', { etag: A, modifiedMs: 1 }, { etag: A, modifiedMs: 2 }, true],
      ['ETags that are digests differ', { etag: A, modifiedMs: 1 }, { etag: B, modifiedMs: 1 }, false],
      ['two edges have ETags of their own', { etag: '"e1"', modifiedMs: 1 }, { etag: '"e2"', modifiedMs: 1 }, true],
      ['so have they, and the times differ', { etag: '"e1"', modifiedMs: 1 }, { etag: '"e2"', modifiedMs: 2 }, false],
      ['ETags differ, and nothing else is there', { etag: '"e1"' }, { etag: '"e2"' }, false],
      ['one alone has a version ID, and the ETag says so', { versionId: '1', etag: A }, { etag: A }, true],
      ['one alone has an ETag, and the time says so', { etag: A, modifiedMs: 1 }, { modifiedMs: 1 }, true],
      [
        'one ETag alone is a digest, and the time says so',
        { etag: A, modifiedMs: 1 },
        { etag: '"e"', modifiedMs: 1 },
        true,
      ],
      ['the time says so', { modifiedMs: 1 }, { modifiedMs: 1 }, true],
      ['the time differs', { modifiedMs: 1 }, { modifiedMs: 2 }, false],
      ['a proxy took the metadata away', { smallSha256: 's', etag: A }, { etag: A }, true],
    ];
  for (const [what, one, other, isSame] of cases) {
    it(`are of ${isSame ? 'one version' : 'two versions'} where ${what}`, () => {
      assert.equal(isSameVersion({ ...BARE, ...one }, { ...BARE, ...other }), isSame);
      assert.equal(isSameVersion({ ...BARE, ...other }, { ...BARE, ...one }), isSame);
    });
  }

  it('are of versions that can not be told apart where nothing is there', () => {
    const unknown = { code: 'cdn_version_unknown', message: /Upload it again/ };
    assert.throws(() => isSameVersion(BARE, BARE), unknown);
    assert.throws(() => isSameVersion({ ...BARE, etag: A }, { ...BARE, modifiedMs: 1 }), unknown);
  });
});
