import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as TypeBox from 'typebox';
import { nullable, textEnum, Type } from '../../src/json-schemas.ts';

/** A schema of each kind, made by `builder`. */
function makeSchemas(builder: typeof Type) {
  return [
    builder.String(),
    builder.String({ format: 'count', maxLength: 3, description: 'A text.' }),
    builder.Boolean({ description: 'A truth.' }),
    builder.Integer({ minimum: 0 }),
    builder.Number({ examples: [30] }),
    builder.Literal(1),
    builder.Array(builder.String({ description: 'An item.' }), { maxItems: 2 }),
    builder.Object({}),
    builder.Object({ a: builder.Optional(builder.Integer()) }),
    builder.Object(
      {
        a: builder.String(),
        b: builder.Optional(builder.Object({ c: builder.Integer(), d: builder.Optional(builder.Boolean()) })),
        e: builder.Literal(2),
      },
      { $id: 'Thing', additionalProperties: false },
    ),
  ];
}

describe('Type', () => {
  it('makes the schemas that TypeBox makes, to the byte', () => {
    assert.deepEqual(
      makeSchemas(Type).map((schema) => JSON.stringify(schema)),
      makeSchemas(TypeBox as unknown as typeof Type).map((schema) => JSON.stringify(schema)),
    );
  });

  it('leaves the schema that it makes optional as it was', () => {
    const text = Type.String();
    Type.Optional(text);
    assert.deepEqual(Type.Object({ text }), { type: 'object', required: ['text'], properties: { text } });
  });

  it('marks optional properties with nothing that a validator would see', () => {
    const { properties } = Type.Object({ a: Type.Optional(Type.String()) });
    assert.deepEqual(Reflect.ownKeys({ ...properties.a }), ['type']);
  });
});

describe('textEnum and nullable', () => {
  it('say which texts there are', () => {
    const one = textEnum(['a', 'b'], { description: 'A letter.' });
    assert.deepEqual(one, { enum: ['a', 'b'], type: 'string', description: 'A letter.' });
    assert.deepEqual(nullable(one), { enum: ['a', 'b', null], type: ['string', 'null'], description: 'A letter.' });
  });
});
