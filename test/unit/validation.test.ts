import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  assertFileName,
  assertFolder,
  FORMATS,
  RequestValidationError,
  toValidationItems,
} from '../../src/http/validation.ts';

function fault(keyword: string, instancePath: string, params: Record<string, unknown>) {
  return { keyword, instancePath, params, schemaPath: '#/x', message: 'hush is what Ajv may quote' };
}

describe('faults of a request', () => {
  it('say which field is missing', () => {
    assert.deepEqual(toValidationItems([fault('required', '', { missingProperty: 'password' })], 'body'), [
      { type: 'missing', loc: ['body', 'password'], msg: 'Field required' },
    ]);
    assert.deepEqual(toValidationItems([fault('required', '/inner', { missingProperty: 'x' })], 'body')[0]?.loc, [
      'body',
      'inner',
      'x',
    ]);
  });

  it('say that a text was wanted', () => {
    assert.deepEqual(toValidationItems([fault('type', '/email', { type: 'string' })], 'body'), [
      { type: 'string_type', loc: ['body', 'email'], msg: 'Input should be a valid string' },
    ]);
  });

  it('say that an object was wanted', () => {
    assert.deepEqual(toValidationItems([fault('type', '', { type: 'object' })], 'body'), [
      {
        type: 'model_attributes_type',
        loc: ['body'],
        msg: 'Input should be a valid dictionary or object to extract fields from',
      },
    ]);
  });

  it('say what a file name or a folder must look like', () => {
    const [name, folder] = toValidationItems(
      [
        fault('format', '/filename', { format: 'resource-filename' }),
        fault('format', '/folder', { format: 'resource-folder' }),
      ],
      'body',
    );
    assert.deepEqual([name?.type, name?.loc], ['value_error', ['body', 'filename']]);
    assert.match(name?.msg ?? '', /one path segment of 1 to 255 bytes/);
    assert.match(folder?.msg ?? '', /1 to 8 path segments/);
  });

  it('are all told, each at its place', () => {
    const items = toValidationItems(
      [fault('required', '', { missingProperty: 'email' }), fault('type', '/password', { type: 'string' })],
      'body',
    );
    assert.deepEqual(
      items.map((item) => item.loc.join('.')),
      ['body.email', 'body.password'],
    );
  });

  it('name the path as FastAPI does', () => {
    assert.deepEqual(toValidationItems([fault('type', '/x', { type: 'string' })], 'params')[0]?.loc, ['path', 'x']);
  });

  it('of kinds that have no words of their own are told without quoting anything', () => {
    const items = toValidationItems(
      [
        fault('type', '/x', { type: 'array' }),
        fault('format', '/x', { format: 'other' }),
        fault('enum', '/x', { allowedValues: ['hush'] }),
      ],
      'body',
    );
    assert.deepEqual(
      items.map((item) => item.type),
      ['type_error', 'value_error', 'value_error'],
    );
    assert.doesNotMatch(JSON.stringify(items), /hush/);
  });
});

describe('a name or folder from outside', () => {
  it('is answered when it is good', () => {
    assert.equal(assertFileName('m.bin', ['path', 'filename']), 'm.bin');
    assert.equal(assertFolder('a/b', ['body', 'folder']), 'a/b');
  });

  for (const name of ['', '..', 'hush/x', 'hush\0', 'hush'.repeat(70)]) {
    it(`is refused as a file name with its place, and not quoted: ${JSON.stringify(name.slice(0, 20))}`, () => {
      assert.throws(
        () => assertFileName(name, ['path', 'filename']),
        (error) => {
          assert.ok(error instanceof RequestValidationError);
          assert.equal(error.code, 'validation_failed');
          assert.deepEqual(error.items[0]?.loc, ['path', 'filename']);
          assert.doesNotMatch(error.message + JSON.stringify(error.items), /hush/);
          return true;
        },
      );
    });
  }

  for (const folder of ['', '../hush', '/hush', 'a/b/c/d/e/f/g/h/i', undefined, 7, ['models'], { folder: 'hush' }]) {
    it(`is refused as a folder: ${JSON.stringify(folder)}`, () => {
      assert.throws(
        () => assertFolder(folder, ['body', 'folder']),
        (error) => {
          assert.ok(error instanceof RequestValidationError);
          assert.deepEqual(error.items[0]?.loc, ['body', 'folder']);
          assert.doesNotMatch(error.message + JSON.stringify(error.items), /hush/);
          return true;
        },
      );
    });
  }

  it('is judged by the same rule in a schema', () => {
    assert.ok(FORMATS['resource-filename']('m.bin') && !FORMATS['resource-filename']('a/b'));
    assert.ok(FORMATS['resource-folder']('a/b') && !FORMATS['resource-folder']('a/../b'));
  });
});
