import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { hasUniqueKeys } from '../../../src/manifest/unique-keys.ts';

describe('the names in a text of JSON', () => {
  it('are unique in whatever JSON.stringify writes', () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        const written = JSON.stringify(JSON.parse(text));
        assert.ok(hasUniqueKeys(written), written);
      }),
    );
  });

  it('are not where one stands twice in an object, however it is written', () => {
    for (const text of [
      '{"a":1,"a":2}',
      '{"a":1, "\\u0061" : 2}',
      '{"b":{"a":1,"c":[],"a":1}}',
      '[{"a":{"a":1},"a":2}]',
      '{"":1,"":1}',
      '{"__proto__":1,"__proto__":2}',
    ]) {
      assert.doesNotThrow(() => JSON.parse(text) as unknown);
      assert.equal(hasUniqueKeys(text), false, text);
    }
  });

  it('may stand again in other objects, as values and within strings', () => {
    for (const text of [
      '{"a":{"a":{"a":1}},"b":"a"}',
      '[{"a":1},{"a":1}]',
      '{"a":"{\\"a\\":1,\\"a\\":2}","b":["a","a"]}',
      '{"a":"\\\\","b":"}"}',
      '"a"',
      '7',
    ]) {
      assert.ok(hasUniqueKeys(text), text);
    }
  });
});
