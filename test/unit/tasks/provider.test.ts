import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { InputError, type InputFault } from '../../../src/errors.ts';
import { JSON_VALUE, Type } from '../../../src/json-schemas.ts';
import { defineProvider, PartialResultError, type TaskContext } from '../../../src/tasks/provider.ts';
import type { JsonObject } from '../../../src/json.ts';

const CONTEXT: TaskContext = {
  signal: new AbortController().signal,
  isUnattended: false,
  report: () => undefined,
  log: () => undefined,
};

const PARAMETERS = Type.Object(
  {
    email: Type.String(),
    password: Type.String({ writeOnly: true }),
    pin: Type.Optional(Type.Integer({ writeOnly: true })),
    note: Type.Optional(Type.String({ writeOnly: false })),
    folder: Type.Optional(Type.String({ format: 'short' })),
  },
  { additionalProperties: false },
);
const NULL = Type.Unsafe<null>({ type: 'null' });
const FORMATS = { short: { validate: (text: string) => text.length < 4, meaning: 'must be short' } };

function define(seen: unknown[] = []) {
  return defineProvider({
    name: 'p',
    parameters: PARAMETERS,
    result: Type.String(),
    formats: FORMATS,
    isRepeatable: false,
    run: (parameters, context) => {
      seen.push(parameters, context);
      return Promise.resolve('answer');
    },
  });
}

function faultsOf(parameters: unknown): readonly InputFault[] {
  try {
    define().prepare(parameters as JsonObject);
  } catch (error) {
    assert.ok(error instanceof InputError);
    assert.doesNotMatch(error.message + JSON.stringify(error.faults), /hush/);
    return error.faults;
  }
  return assert.fail('they are good');
}

describe('a provider', () => {
  it('is what its definition says', () => {
    const { name, parameters, result, isRepeatable, onOutsideWork } = define();
    assert.deepEqual([name, isRepeatable, onOutsideWork], ['p', false, undefined]);
    assert.deepEqual([parameters, result], [PARAMETERS, Type.String()]);
    assert.ok(!('onOutsideWork' in define()));
    const listen = () => undefined;
    const run = () => Promise.resolve(null);
    const own = {
      name: 'q',
      parameters: Type.Object({}),
      result: NULL,
      isRepeatable: false,
      run,
      onOutsideWork: listen,
    };
    assert.equal(defineProvider(own).onOutsideWork, listen);
    assert.equal(defineProvider({ ...own, isRepeatable: true }).isRepeatable, true);
  });

  it('runs with all of its parameters, and shows those that are no secrets', async () => {
    const seen: unknown[] = [];
    const given = { email: 'e', password: 'p', pin: 7, note: 'n', folder: 'a/b' };
    const prepared = define(seen).prepare(given);
    assert.deepEqual(prepared.parameters, { email: 'e', note: 'n', folder: 'a/b' });
    assert.equal(prepared.hasSecrets, true);
    assert.deepEqual(seen, []);
    assert.equal(await prepared.work(CONTEXT), 'answer');
    assert.deepEqual(seen, [given, CONTEXT]);
  });

  it('has no secrets where none are given', () => {
    const provider = defineProvider({
      name: 'p',
      parameters: Type.Object({ x: JSON_VALUE, password: Type.Unsafe({ writeOnly: true }) }, { required: [] }),
      result: NULL,
      isRepeatable: false,
      run: () => Promise.resolve(null),
    });
    const { parameters, hasSecrets } = provider.prepare({ x: 1, more: [2] });
    assert.deepEqual([parameters, hasSecrets], [{ x: 1, more: [2] }, false]);
    assert.equal(provider.prepare({ password: null }).hasSecrets, true);
  });

  it('refuses parameters with their first fault, and quotes no value', () => {
    const good = { email: 'hush', password: 'hush' };
    for (const [parameters, type, path] of [
      [{ ...good, pin: 'hush' }, 'int_type', ['pin']],
      [{ email: 'hush' }, 'missing', ['password']],
      [{ ...good, extra: 'hush' }, 'extra_forbidden', ['extra']],
      [{ ...good, folder: 'hush' }, 'value_error', ['folder']],
      [{ email: 7, pin: 'x' }, 'missing', ['password']],
    ] as const) {
      assert.deepEqual(
        faultsOf(parameters).map((fault) => [fault.type, fault.path]),
        [[type, path]],
      );
    }
  });

  it('knows the formats that it is defined with, and says what a text of one must be', () => {
    define().prepare({ email: 'e', password: 'p', folder: 'a' });
    assert.deepEqual(faultsOf({ email: 'e', password: 'p', folder: 'long' })[0]?.message, 'must be short');
  });

  it('with secrets can not be one that is repeated: they would be missing', () => {
    const own = { name: 'p', result: NULL, isRepeatable: true, run: () => Promise.resolve(null) };
    assert.throws(
      () => defineProvider({ ...own, parameters: Type.Object({ pin: Type.String({ writeOnly: true }) }) }),
      /p can't be repeated: its secrets are not kept/,
    );
    defineProvider({ ...own, parameters: Type.Object({ pin: Type.String({ writeOnly: false }) }) });
  });

  it('takes no number for a text, and fills in nothing', () => {
    assert.equal(faultsOf({ email: 'e', password: 5 })[0]?.type, 'string_type');
    for (const nothing of [null, [], 'text']) assert.equal(faultsOf(nothing)[0]?.type, 'model_attributes_type');
  });

  it('that can not be understood is told when it is defined', () => {
    assert.throws(() =>
      defineProvider({
        name: 'p',
        parameters: Type.Object({ x: Type.Unsafe({ type: 'sting' }) }),
        result: NULL,
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
