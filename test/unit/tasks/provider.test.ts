import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { defineProvider, ParametersError, PartialResultError, type TaskContext } from '../../../src/tasks/provider.ts';
import type { JsonObject } from '../../../src/json.ts';

const CONTEXT: TaskContext = {
  signal: new AbortController().signal,
  isUnattended: false,
  report: () => undefined,
  log: () => undefined,
};

const SCHEMA = {
  type: 'object',
  required: ['email', 'password'],
  additionalProperties: false,
  properties: {
    email: { type: 'string' },
    password: { type: 'string', writeOnly: true },
    pin: { type: 'integer', writeOnly: true },
    note: { type: 'string', writeOnly: false },
    folder: { type: 'string', format: 'resource-folder' },
    filename: { type: 'string', format: 'resource-filename' },
  },
} as const;

function define(seen: unknown[] = []) {
  return defineProvider<{ email: string; password: string }>({
    name: 'p',
    schema: SCHEMA,
    isRepeatable: false,
    run: (parameters, context) => {
      seen.push(parameters, context);
      return Promise.resolve('answer');
    },
  });
}

function faultsOf(parameters: unknown): ParametersError {
  try {
    define().prepare(parameters as JsonObject);
  } catch (error) {
    assert.ok(error instanceof ParametersError);
    return error;
  }
  return assert.fail('they are good');
}

describe('a provider', () => {
  it('is what its definition says', () => {
    const { name, schema, isRepeatable, onOutsideRun } = define();
    assert.deepEqual([name, schema, isRepeatable, onOutsideRun], ['p', SCHEMA, false, undefined]);
    assert.ok(!('onOutsideRun' in define()));
    const listen = () => undefined;
    const run = () => Promise.resolve(null);
    const own = {
      name: 'q',
      schema: { type: 'object', properties: {} },
      isRepeatable: false,
      run,
      onOutsideRun: listen,
    };
    assert.equal(defineProvider(own).onOutsideRun, listen);
    assert.equal(defineProvider({ ...own, isRepeatable: true }).isRepeatable, true);
  });

  it('runs with all of its parameters, and shows those that are no secrets', async () => {
    const seen: unknown[] = [];
    const given = { email: 'e', password: 'p', pin: 7, note: 'n', folder: 'a/b' };
    const prepared = define(seen).prepare(given);
    assert.deepEqual(prepared.parameters, { email: 'e', note: 'n', folder: 'a/b' });
    assert.equal(prepared.hasSecrets, true);
    assert.deepEqual(seen, []);
    assert.equal(await prepared.run(CONTEXT), 'answer');
    assert.deepEqual(seen, [given, CONTEXT]);
  });

  it('has no secrets where none are given', () => {
    const provider = defineProvider<object>({
      name: 'p',
      schema: { type: 'object', properties: { x: {}, password: { writeOnly: true } } },
      isRepeatable: false,
      run: () => Promise.resolve(null),
    });
    const { parameters, hasSecrets } = provider.prepare({ x: 1, more: [2] });
    assert.deepEqual([parameters, hasSecrets], [{ x: 1, more: [2] }, false]);
    assert.equal(provider.prepare({ password: null }).hasSecrets, true);
  });

  it('refuses parameters with their first fault, and quotes no value', () => {
    for (const [parameters, fault] of [
      [{ email: 'e', password: 'hush', pin: 'hush' }, 'type /pin'],
      [{ email: 'hush' }, 'required '],
      [{ email: 'hush', password: 'hush', extra: 'hush' }, 'additionalProperties '],
      [{ email: 'hush', password: 'hush', folder: '../hush' }, 'format /folder'],
      [{ email: 'hush', password: 'hush', filename: 'hush/hush' }, 'format /filename'],
    ] as const) {
      const { code, errors, message } = faultsOf(parameters);
      assert.equal(code, 'validation_failed');
      assert.deepEqual(
        errors.map(({ keyword, instancePath }) => `${keyword} ${instancePath}`),
        [fault],
      );
      assert.doesNotMatch(message + JSON.stringify(errors), /hush/);
    }
    assert.equal(faultsOf({ email: 7, pin: 'x', extra: 1 }).errors.length, 1);
  });

  it('takes the forms of resource names', () => {
    define().prepare({ email: 'e', password: 'p', folder: 'models/a', filename: 'm.bin' });
  });

  it('with secrets can not be one that is repeated: they would be missing', () => {
    const own = { name: 'p', isRepeatable: true, run: () => Promise.resolve(null) };
    assert.throws(
      () => defineProvider({ ...own, schema: { type: 'object', properties: { pin: { writeOnly: true } } } }),
      /p can't be repeated: its secrets are not kept/,
    );
    defineProvider({ ...own, schema: { type: 'object', properties: { pin: { writeOnly: false } } } });
  });

  it('takes no number for a text, and fills in nothing', () => {
    assert.equal(faultsOf({ email: 'e', password: 5 }).errors.length, 1);
    for (const nothing of [null, [], 'text']) assert.ok(faultsOf(nothing).errors.length > 0);
  });

  it('that can not be understood is told when it is defined', () => {
    assert.throws(() =>
      defineProvider({
        name: 'p',
        schema: { type: 'object', properties: { x: { type: 'sting' } } },
        isRepeatable: true,
        run: () => Promise.resolve(null),
      }),
    );
  });
});

describe('a part of a result', () => {
  it('goes with the failure', () => {
    const error = new PartialResultError('prefetch_incomplete', 'One of two.', [1]);
    assert.deepEqual([error.code, error.message, error.result], ['prefetch_incomplete', 'One of two.', [1]]);
  });
});
