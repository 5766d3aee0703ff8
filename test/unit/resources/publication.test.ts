import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import { isOf } from '../../../src/resources/publication.ts';
import { makeVersion } from '../../support/upload-lab.ts';

const md5 = (bytes: Buffer | string) => createHash('md5').update(bytes).digest();
const PARTS = ['one', 'two'].map((text, index) => ({ number: index + 1, etag: `"${md5(text).toString('hex')}"` }));
const ETAG = `"${md5(Buffer.concat([md5('one'), md5('two')])).toString('hex')}-2"`;
const PUBLICATION = { parts: PARTS, smallSha256: 'ours', small: '' };

describe('an object', () => {
  for (const [what, version, expected] of [
    ['names its small part', { etag: '"any"', smallSha256: 'ours' }, true],
    ['names another one', { etag: ETAG, smallSha256: 'theirs' }, false],
    ['names none and has the ETag of its parts', { etag: ETAG }, true],
    ['names none and has another ETag', { etag: ETAG.replace('-2', '-3') }, false],
  ] as const) {
    it(`is ${expected ? '' : 'not '}that of an upload when it ${what}`, () => {
      assert.equal(isOf(makeVersion(version), PUBLICATION), expected);
    });
  }

  it('can not be told where neither small part nor ETag is there', () => {
    assert.throws(() => isOf(makeVersion({}), PUBLICATION), { code: 'cdn_version_unknown' });
  });
});
