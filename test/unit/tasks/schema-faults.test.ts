import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Ajv, type SchemaObject } from 'ajv';
import type { InputFault } from '../../../src/errors.ts';
import { toSchemaFaults, type SchemaError } from '../../../src/tasks/schema-faults.ts';

const FORMATS = { even: { validate: (text: string) => text.length % 2 === 0, meaning: 'must have an even length' } };

function faultsOf(schema: SchemaObject, input: unknown): InputFault[] {
  const ajv = new Ajv({ allErrors: true, verbose: true, formats: FORMATS });
  assert.ok(!ajv.validate(schema, input), 'the input is refused');
  return toSchemaFaults(ajv.errors ?? [], FORMATS);
}

/** The faults of a field `x`. */
function faultsOfField(schema: SchemaObject, value: unknown): InputFault[] {
  return faultsOf({ type: 'object', properties: { x: schema } }, { x: value });
}

describe('faults of an input', () => {
  it('say which field is missing', () => {
    const schema = {
      type: 'object',
      required: ['password'],
      properties: { password: {}, inner: { type: 'object', required: ['y'], properties: { y: {} } } },
    };
    assert.deepEqual(faultsOf(schema, { inner: {} }), [
      { type: 'missing', path: ['password'], message: 'Field required' },
      { type: 'missing', path: ['inner', 'y'], message: 'Field required' },
    ]);
  });

  it('name a field that is too much, unless its name may be a secret, and never its value', () => {
    const schema = { type: 'object', additionalProperties: false, properties: {} };
    assert.deepEqual(faultsOf(schema, { deep: 'hush' }), [
      { type: 'extra_forbidden', path: ['deep'], message: 'Extra inputs are not permitted' },
    ]);
    for (const name of ['n'.repeat(65), 'hush-1', 'hush1', 'h u', '']) {
      assert.deepEqual(faultsOf(schema, { [name]: 1 })[0]?.path, ['(name not shown)'], name);
    }
  });

  for (const [schemaType, type, message] of [
    ['string', 'string_type', 'Input should be a valid string'],
    ['object', 'model_attributes_type', 'Input should be a valid dictionary or object to extract fields from'],
    ['boolean', 'bool_type', 'Input should be a valid boolean'],
    ['integer', 'int_type', 'Input should be a valid integer'],
    ['number', 'float_type', 'Input should be a valid number'],
    ['array', 'list_type', 'Input should be a valid list'],
  ] as const) {
    it(`say that another type was wanted: ${schemaType}`, () => {
      assert.deepEqual(faultsOfField({ type: schemaType }, null), [{ type, path: ['x'], message }]);
    });
  }

  it('of a type without words of its own are told all the same', () => {
    assert.deepEqual(faultsOfField({ type: 'null' }, 'hush'), [
      { type: 'type_error', path: ['x'], message: 'Input has a wrong type' },
    ]);
  });

  for (const [values, words] of [
    [['a', 'b', 'c'], "'a', 'b' or 'c'"],
    [['a', 'b'], "'a' or 'b'"],
    [['a'], "'a'"],
  ] as const) {
    it(`say which values there are: ${words}`, () => {
      assert.deepEqual(faultsOfField({ type: 'string', enum: values }, 'hush'), [
        { type: 'literal_error', path: ['x'], message: `Input should be ${words}` },
      ]);
    });
  }

  it('say what a text of a format must be', () => {
    assert.deepEqual(faultsOfField({ type: 'string', format: 'even' }, 'odd'), [
      { type: 'value_error', path: ['x'], message: 'must have an even length' },
    ]);
    const unknown: SchemaError = { keyword: 'format', instancePath: '/x', params: { format: 'other' } };
    assert.deepEqual(toSchemaFaults([unknown], FORMATS)[0]?.message, 'must be of the form other');
  });

  const limits: readonly (readonly [schema: SchemaObject, value: unknown, message: string])[] = [
    [{ type: 'number', minimum: 0 }, -1, 'must be 0 or more'],
    [{ type: 'number', maximum: 9 }, 10, 'must be 9 or less'],
    [{ type: 'number', exclusiveMinimum: 0 }, 0, 'must be more than 0'],
    [{ type: 'number', exclusiveMaximum: 9 }, 9, 'must be less than 9'],
    [{ type: 'string', minLength: 1 }, '', 'must have at least 1 character'],
    [{ type: 'string', maxLength: 3 }, 'hush', 'must have at most 3 characters'],
    [{ type: 'array', minItems: 1 }, [], 'must have at least 1 item'],
    [{ type: 'array', maxItems: 2 }, [1, 2, 3], 'must have at most 2 items'],
    [{ type: 'object', minProperties: 1, properties: { a: {}, b: {} } }, {}, 'must have at least 1 field of a or b'],
    [{ type: 'object', minProperties: 2 }, {}, 'must have at least 2 fields'],
    [{ type: 'object', maxProperties: 0 }, { hush: 1 }, 'must have at most 0 fields'],
    [{ type: 'string', pattern: '^a' }, 'hush', "must meet the schema's pattern"],
  ];
  for (const [schema, value, message] of limits) {
    it(`say what would be right: ${message}`, () => {
      assert.deepEqual(faultsOfField(schema, value), [{ type: 'value_error', path: ['x'], message }]);
    });
  }

  it('go as deep as they lie, by the names of the input', () => {
    const schema = {
      type: 'object',
      properties: { 'a/b~c': { type: 'array', items: { type: 'object', properties: { z: { type: 'string' } } } } },
    };
    assert.deepEqual(faultsOf(schema, { 'a/b~c': [{}, { z: 5 }] })[0]?.path, ['a/b~c', '1', 'z']);
  });

  it('are all told, but no more than fifty', () => {
    const faults = faultsOf({ type: 'array', items: { type: 'string' } }, new Array(60).fill(0));
    assert.deepEqual([faults.length, faults.at(-1)?.path], [50, ['49']]);
  });
});
