import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LoaderError } from '../../../src/errors.ts';
import {
  assertFileName,
  assertFolder,
  FORMATS,
  RequestValidationError,
  toRequestError,
  toValidationItems,
} from '../../../src/http/errors/request-faults.ts';
import { CronExpression } from '../../../src/tasks/cron-expression.ts';
import { defineProvider } from '../../../src/tasks/provider.ts';
import { UnknownProviderError } from '../../../src/tasks/task-runner.ts';

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

  it('name the query and the headers as FastAPI does', () => {
    assert.deepEqual(toValidationItems([fault('format', '/limit', { format: 'count' })], 'querystring')[0]?.loc, [
      'query',
      'limit',
    ]);
    assert.deepEqual(toValidationItems([fault('type', '/x', { type: 'string' })], 'headers')[0]?.loc, ['header', 'x']);
    assert.deepEqual(toValidationItems([fault('type', '/x', { type: 'string' })], 'other')[0]?.loc, ['other', 'x']);
  });

  it('are no more than fifty', () => {
    const errors = Array.from({ length: 60 }, (_, index) => fault('type', `/${index}`, { type: 'string' }));
    const items = toValidationItems(errors, 'body');
    assert.deepEqual([items.length, items.at(-1)?.loc], [50, ['body', '49']]);
  });

  it('begin where they are told to, and go as deep as they lie', () => {
    assert.deepEqual(
      toValidationItems([fault('type', '/resources/0/folder', { type: 'string' })], 'body', ['parameters'])[0]?.loc,
      ['body', 'parameters', 'resources', '0', 'folder'],
    );
    assert.deepEqual(toValidationItems([fault('required', '', { missingProperty: 'x' })], 'body', ['p'])[0]?.loc, [
      'body',
      'p',
      'x',
    ]);
  });

  for (const [type, kind, words] of [
    ['boolean', 'bool_type', 'Input should be a valid boolean'],
    ['integer', 'int_type', 'Input should be a valid integer'],
    ['number', 'float_type', 'Input should be a valid number'],
    ['array', 'list_type', 'Input should be a valid list'],
    ['null', 'type_error', 'Input has a wrong type'],
  ] as const) {
    it(`say that another type was wanted: ${type}`, () => {
      assert.deepEqual(toValidationItems([fault('type', '/x', { type })], 'body'), [
        { type: kind, loc: ['body', 'x'], msg: words },
      ]);
    });
  }

  for (const [values, words] of [
    [['a', 'b', 'c'], "'a', 'b' or 'c'"],
    [['a', 'b'], "'a' or 'b'"],
    [['a'], "'a'"],
  ] as const) {
    it(`say which values there are: ${words}`, () => {
      assert.deepEqual(toValidationItems([fault('enum', '/x', { allowedValues: values })], 'querystring'), [
        { type: 'literal_error', loc: ['query', 'x'], msg: `Input should be ${words}` },
      ]);
    });
  }

  it('say that something is too much, but not what: its name is input too', () => {
    const params = { additionalProperty: 'hush' };
    assert.deepEqual(toValidationItems([fault('additionalProperties', '/inner', params)], 'body'), [
      { type: 'extra_forbidden', loc: ['body', 'inner'], msg: 'Extra inputs are not permitted' },
    ]);
  });

  it('say what a number or a page must be', () => {
    const messages = toValidationItems(
      [fault('format', '/cursor', { format: 'count' }), fault('format', '/limit', { format: 'page-limit' })],
      'querystring',
    ).map(({ msg }) => msg);
    assert.deepEqual(messages, [
      'Value error, must be a whole number',
      'Value error, must be a whole number from 1 to 200',
    ]);
  });

  it('of kinds that have no words of their own are told in those of Ajv, which quote nothing', () => {
    const { message, ...silent } = fault('maxItems', '/x', { limit: 3 });
    assert.equal(typeof message, 'string');
    assert.deepEqual(toValidationItems([{ ...silent, message: 'must NOT have more than 3 items' }, silent], 'body'), [
      { type: 'value_error', loc: ['body', 'x'], msg: 'Value error, must NOT have more than 3 items' },
      { type: 'value_error', loc: ['body', 'x'], msg: 'Value error, maxItems' },
    ]);
    assert.deepEqual(toValidationItems([fault('format', '/x', { format: 'other' })], 'body')[0]?.msg, 'Value error');
  });
});

describe('what the tasks refuse', () => {
  const provider = defineProvider<object>({
    name: 'p',
    schema: {
      type: 'object',
      required: ['resources'],
      additionalProperties: false,
      properties: { resources: { type: 'array', minItems: 1, items: { type: 'string', format: 'resource-folder' } } },
    },
    isRepeatable: true,
    run: () => Promise.resolve(null),
  });

  function itemsOf(work: () => unknown, path?: readonly string[]): unknown {
    try {
      work();
    } catch (error) {
      const mapped = toRequestError(error, path);
      assert.ok(mapped instanceof RequestValidationError);
      assert.equal(mapped.code, 'validation_failed');
      return mapped.items;
    }
    return assert.fail('it was not refused');
  }

  it('are faults of the body: its parameters, wherever they lie there', () => {
    const message =
      'Value error, must be 1 to 8 path segments joined by /, each of 1 to 255 bytes of UTF-8, without \\ or control characters, and not . or ..';
    for (const path of [[], ['parameters']]) {
      assert.deepEqual(
        itemsOf(() => provider.prepare({ resources: ['a', '../hush'] }), path),
        [{ type: 'value_error', loc: ['body', ...path, 'resources', '1'], msg: message }],
      );
      assert.deepEqual(
        itemsOf(() => provider.prepare({ resources: ['a'], hush: 'hush' }), path),
        [{ type: 'extra_forbidden', loc: ['body', ...path], msg: 'Extra inputs are not permitted' }],
      );
    }
    assert.deepEqual(
      itemsOf(() => provider.prepare({})),
      [{ type: 'missing', loc: ['body', 'resources'], msg: 'Field required' }],
    );
    assert.deepEqual(
      itemsOf(() => provider.prepare({ resources: [] })),
      [{ type: 'value_error', loc: ['body', 'resources'], msg: 'Value error, must NOT have fewer than 1 items' }],
    );
  });

  it('is a provider that there is not, and which there are', () => {
    assert.deepEqual(
      itemsOf(() => {
        throw new UnknownProviderError(['evict', 'prefetch', 'unlock']);
      }, ['parameters']),
      [{ type: 'literal_error', loc: ['body', 'provider'], msg: "Input should be 'evict', 'prefetch' or 'unlock'" }],
    );
  });

  it('is a pattern or a time zone', () => {
    assert.deepEqual(
      itemsOf(() => new CronExpression('soon', 'UTC'), ['parameters']),
      [
        {
          type: 'value_error',
          loc: ['body', 'cron'],
          msg: 'Value error, cron must be a cron pattern of five fields, such as 30 3 * * 1-5',
        },
      ],
    );
    assert.deepEqual(
      itemsOf(() => new CronExpression('* * * * *', 'Mars')),
      [
        {
          type: 'value_error',
          loc: ['body', 'timezone'],
          msg: 'Value error, timezone must be an IANA time zone, such as UTC or Europe/Berlin',
        },
      ],
    );
  });

  it('stays as it is when it is something else', () => {
    for (const error of [new LoaderError('task_not_found', 'x'), new Error('x'), undefined]) {
      assert.equal(toRequestError(error), error);
    }
  });
});

describe('a number in a query', () => {
  it('is written in digits', () => {
    for (const text of ['0', '7', '007', '999999999999999']) assert.ok(FORMATS.count(text), text);
    for (const text of ['', '-1', '1.5', '1e3', ' 1', '1\n', '٣', '0x1', '9999999999999999']) {
      assert.ok(!FORMATS.count(text), JSON.stringify(text));
    }
  });

  it('is from 1 to 200 for a page', () => {
    for (const text of ['1', '01', '200']) assert.ok(FORMATS['page-limit'](text), text);
    for (const text of ['0', '201', '000', '0200', '', '-1', '1e1', '1\n']) {
      assert.ok(!FORMATS['page-limit'](text), JSON.stringify(text));
    }
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
