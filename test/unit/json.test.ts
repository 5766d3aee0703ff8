import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { asRecord, parseJson } from '../../src/json.ts';

describe('the fields of a value', () => {
  it('are those of an object', () => {
    assert.deepEqual(asRecord({ a: 1 }), { a: 1 });
    assert.deepEqual(asRecord(JSON.parse('{}')), {});
  });

  for (const value of [null, undefined, [], [{ a: 1 }], 'text', 7, true]) {
    it(`are none of ${JSON.stringify(value)}`, () => assert.equal(asRecord(value), undefined));
  }
});

describe('a JSON text', () => {
  it('is read as its value', () => {
    assert.deepEqual(parseJson('{"a":[1,null]}'), { a: [1, null] });
    assert.equal(parseJson('null'), null);
  });

  for (const text of ['', '{', 'text', '{"a":1}}']) {
    it(`is undefined when it is none: ${JSON.stringify(text)}`, () => assert.equal(parseJson(text), undefined));
  }
});
