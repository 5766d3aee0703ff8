import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { InputError } from '../../../src/errors.ts';
import {
  assertFileName,
  assertFolder,
  REQUEST_FORMATS,
  toInputError,
} from '../../../src/http/errors/request-faults.ts';

describe('the faults of a request', () => {
  const error = { keyword: 'type', instancePath: '/x', params: { type: 'string' }, schemaPath: '#/x', message: 'hush' };

  for (const [context, source] of [
    ['body', 'body'],
    ['params', 'path'],
    ['querystring', 'query'],
    ['headers', 'header'],
  ] as const) {
    it(`have their place as FastAPI names it: ${source}`, () => {
      const found = toInputError([error], context);
      assert.equal(found.source, source);
      assert.deepEqual(found.faults, [{ type: 'string_type', path: ['x'], message: 'Input should be a valid string' }]);
    });
  }

  it('say what a text of a format of ours must be', () => {
    const messages = Object.keys(REQUEST_FORMATS).flatMap((format) =>
      toInputError([{ ...error, keyword: 'format', params: { format } }], 'querystring').faults.map(
        ({ message }) => message,
      ),
    );
    assert.match(messages[0] ?? '', /^must be one path segment of 1 to 249 bytes/);
    assert.match(messages[1] ?? '', /^must be 1 to 8 path segments/);
    assert.deepEqual(messages.slice(2), ['must be a whole number', 'must be a whole number from 1 to 200']);
  });
});

describe('a number in a query', () => {
  it('is written in digits', () => {
    const { validate } = REQUEST_FORMATS.count;
    for (const text of ['0', '7', '007', '999999999999999']) assert.ok(validate(text), text);
    for (const text of ['', '-1', '1.5', '1e3', ' 1', '1\n', '٣', '0x1', '9999999999999999']) {
      assert.ok(!validate(text), JSON.stringify(text));
    }
  });

  it('is from 1 to 200 for a page', () => {
    const { validate } = REQUEST_FORMATS['page-limit'];
    for (const text of ['1', '01', '200']) assert.ok(validate(text), text);
    for (const text of ['0', '201', '000', '0200', '', '-1', '1e1', '1\n']) {
      assert.ok(!validate(text), JSON.stringify(text));
    }
  });
});

describe('a name or folder from outside', () => {
  it('is returned when it is good', () => {
    assert.equal(assertFileName('m.bin'), 'm.bin');
    assert.equal(assertFolder('a/b'), 'a/b');
  });

  for (const name of ['', '..', 'hush/x', 'hush\0', 'hush'.repeat(70)]) {
    it(`is refused as a file name of the path, and not quoted: ${JSON.stringify(name.slice(0, 20))}`, () => {
      assert.throws(() => assertFileName(name), isFault('path', 'filename'));
    });
  }

  for (const folder of ['', '../hush', '/hush', 'a/b/c/d/e/f/g/h/i', undefined, 7, ['models'], { folder: 'hush' }]) {
    it(`is refused as a folder of the body: ${JSON.stringify(folder)}`, () => {
      assert.throws(() => assertFolder(folder), isFault('body', 'folder'));
    });
  }

  it('is judged by the same rule in a schema', () => {
    assert.ok(REQUEST_FORMATS['resource-filename'].validate('m.bin'));
    assert.ok(!REQUEST_FORMATS['resource-filename'].validate('a/b'));
    assert.ok(REQUEST_FORMATS['resource-folder'].validate('a/b'));
    assert.ok(!REQUEST_FORMATS['resource-folder'].validate('a/../b'));
  });
});

function isFault(source: string, field: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof InputError);
    assert.equal(error.source, source);
    assert.deepEqual(
      error.faults.map(({ type, path }) => [type, path]),
      [['value_error', [field]]],
    );
    assert.doesNotMatch(error.message + JSON.stringify(error.faults), /hush/);
    return true;
  };
}
