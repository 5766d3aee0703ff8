import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { UnlockedArchive } from '../../../src/binary-split/unlock-archive.ts';
import { formatReceipt, parseReceipt } from '../../../src/unlock/receipt.ts';

const digest = (pair: string) => `sha256:${pair.repeat(32)}`;
const LOADED: UnlockedArchive = {
  identity: { length: 123_456_789_012, modifiedNs: '1700000000123456789', iv: '07'.repeat(16) },
  images: [
    { id: digest('aa'), tags: ['azaion/api:1', 'azaion/api:latest'] },
    { id: digest('bb'), tags: [] },
  ],
};

describe('a receipt', () => {
  it('is read as it was written, by whoever comes later', () => {
    assert.deepEqual(parseReceipt(formatReceipt(LOADED)), LOADED);
  });

  it('is none wherever it is cut', () => {
    const text = formatReceipt(LOADED);
    for (let length = 0; length < text.length; length++) {
      assert.equal(parseReceipt(text.slice(0, length)), undefined, `${length} characters`);
    }
  });

  const sound = { version: 1, ...LOADED };
  for (const [what, value] of [
    ['null', null],
    ['a number', 5],
    ['a list', [sound]],
    ['text', 'x'],
    ['no version', LOADED],
    ['an older version', { ...sound, version: 0 }],
    ['a newer version', { ...sound, version: 2 }],
    ['a version that is text', { ...sound, version: '1' }],
    ['no identity', { ...sound, identity: undefined }],
    ['null for an identity', { ...sound, identity: null }],
    ['no length', { ...sound, identity: { ...LOADED.identity, length: undefined } }],
    ['a length that is text', { ...sound, identity: { ...LOADED.identity, length: '5' } }],
    ['a time that is a number', { ...sound, identity: { ...LOADED.identity, modifiedNs: 5 } }],
    ['no IV', { ...sound, identity: { ...LOADED.identity, iv: undefined } }],
    ['no images', { ...sound, images: undefined }],
    ['an empty list of images', { ...sound, images: [] }],
    ['images that are no list', { ...sound, images: { length: 1 } }],
    ['null for an image', { ...sound, images: [null] }],
    ['an ID that is no digest', { ...sound, images: [{ id: `sha256:${'ag'.repeat(32)}`, tags: [] }] }],
    ['a tag that Docker refuses', { ...sound, images: [{ id: digest('aa'), tags: ['azaion/aPi:1'] }] }],
    ['a length that is no whole number', { ...sound, identity: { ...LOADED.identity, length: 1.5 } }],
    ['a time that is no number', { ...sound, identity: { ...LOADED.identity, modifiedNs: '17:0' } }],
    ['an IV that is no hex', { ...sound, identity: { ...LOADED.identity, iv: '0w'.repeat(16) } }],
    ['an image without an ID', { ...sound, images: [{ tags: [] }] }],
    ['an image without tags', { ...sound, images: [{ id: digest('aa') }] }],
    ['a tag that is no text', { ...sound, images: [...LOADED.images, { id: digest('aa'), tags: ['a:1', 1] }] }],
  ] as const) {
    it(`is none with, or as, ${what}`, () => assert.equal(parseReceipt(JSON.stringify(value)), undefined));
  }

  it('may have more than is needed', () => {
    assert.ok(parseReceipt(JSON.stringify({ ...sound, more: 1 })));
  });
});
