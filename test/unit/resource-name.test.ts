import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { assertStorable, isSafeFolder, isSafeSegment, RESOURCE_FORMATS } from '../../src/resource-name.ts';

const GOOD_SEGMENTS: readonly [string, string][] = [
  ['a plain name', 'model.bin'],
  ['three dots', '...'],
  ['a hidden name', '.hidden'],
  ['two dots within', 'a..b'],
  ['spaces', ' a b '],
  ['percent signs', '%2e%2e'],
  ['a colon, a question mark and quotes', 'a:b?"\'*'],
  ['Unicode', 'модель-模型-🛰️'],
  ['255 bytes', 'a'.repeat(255)],
  ['255 bytes of two each but one', `${'é'.repeat(127)}a`],
];

const BAD_SEGMENTS: readonly [string, string][] = [
  ['nothing', ''],
  ['a dot', '.'],
  ['two dots', '..'],
  ['a slash', 'a/b'],
  ['a slash before it', '/a'],
  ['a slash behind it', 'a/'],
  ['a backslash', 'a\\b'],
  ['backslashes for slashes', '..\\..'],
  ['NUL', 'a\0b'],
  ['a line break', 'a\nb'],
  ['a tab', 'a\tb'],
  ['an escape', 'a\x1bb'],
  ['DEL', 'a\x7fb'],
  ['a control character of C1', 'a\u0085b'],
  ['256 bytes', 'a'.repeat(256)],
  ['256 bytes of two each', 'é'.repeat(128)],
  ['256 bytes of four each', '🛰'.repeat(64)],
  ['a lone high surrogate', 'a\ud800'],
  ['a lone low surrogate', '\udc00a'],
];

describe('a path segment', () => {
  for (const [kind, text] of GOOD_SEGMENTS) {
    it(`may have ${kind}`, () => {
      assert.ok(isSafeSegment(text));
      assert.ok(isSafeFolder(text));
      assert.ok(isSafeFolder(`models/${text}`));
    });
  }
  for (const [kind, text] of BAD_SEGMENTS) {
    it(`may not have ${kind}`, () => {
      assert.ok(!isSafeSegment(text));
      if (text === 'a/b') return;
      assert.ok(!isSafeFolder(text));
      assert.ok(!isSafeFolder(`models/${text}`));
      assert.ok(!isSafeFolder(`${text}/models`));
    });
  }
});

describe('a folder', () => {
  it('may have one to eight segments', () => {
    for (let count = 1; count <= 8; count++) assert.ok(isSafeFolder(Array<string>(count).fill('a').join('/')));
    assert.ok(!isSafeFolder(Array<string>(9).fill('a').join('/')));
  });

  it('may have eight segments of 255 bytes each', () =>
    assert.ok(isSafeFolder(Array<string>(8).fill('a'.repeat(255)).join('/'))));

  for (const folder of ['', '/', '/models', 'models/', 'a//b', 'a/../b', '../models', 'a/./b', 'a/..']) {
    it(`may not be "${folder}"`, () => assert.ok(!isSafeFolder(folder)));
  }
});

describe('the file name of a resource', () => {
  const { validate, meaning } = RESOURCE_FORMATS['resource-filename'];

  it('fits 255 bytes with the suffix of its small part', () => {
    assert.ok(validate('a'.repeat(249)));
    assert.ok(!validate('a'.repeat(250)));
    assert.ok(!validate('é'.repeat(125)));
    assert.match(meaning, /249/);
  });

  it('has no quotation mark, which a form writes as %22: that is another name', () => {
    assert.ok(!validate('a"b.onnx'));
    assert.ok(validate('a%22b.onnx'));
    assert.match(meaning, /without [^,]* " /);
  });
});

describe('the folder of a resource', () => {
  const { validate, meaning } = RESOURCE_FORMATS['resource-folder'];

  for (const folder of ['get', 'get/models', 'GET', 'Get/models']) {
    it(`may not be "${folder}", where the Resource API reads`, () => {
      assert.ok(!validate(folder));
      assert.match(meaning, /get/);
    });
  }
  for (const folder of ['getter', 'models/get', 'ge', '%67et']) {
    it(`may be "${folder}"`, () => assert.ok(validate(folder)));
  }
});

describe("the key of a resource's object", () => {
  const folder = `${'é'.repeat(100)}/${'a'.repeat(255)}/${'b'.repeat(255)}/${'c'.repeat(255)}`;

  it('may have 1,024 bytes, and no more', () => {
    const name = 'n'.repeat(1024 - Buffer.byteLength(`${folder}/.manifest`));
    assertStorable({ folder, name });
    assert.throws(() => assertStorable({ folder, name: `${name}n` }), {
      code: 'validation_failed',
      message: /folder: must be shorter.* 1025 bytes.* at most 1024/,
    });
  });
});
