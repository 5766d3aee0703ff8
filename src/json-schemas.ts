import { Type, type Static, type TEnum, type TSchemaOptions, type TUnsafe } from 'typebox';
import { ERRORS, type ErrorCode } from './errors.ts';
import type { JsonObject, JsonValue } from './json.ts';

/** Kinds of JSON Schemas that TypeBox has not, or makes in another way than Ajv's messages and serialisers want. */

/** Any JSON value. */
export const JSON_VALUE = Type.Unsafe<JsonValue>({});

/** An object with any fields. */
export const JSON_OBJECT = Type.Unsafe<JsonObject>({ type: 'object', additionalProperties: true });

/** One of some texts. A union of literals would report a fault for each of them. */
export function textEnum<Values extends string[]>(
  values: readonly [...Values],
  options: TSchemaOptions = {},
): TEnum<Values> {
  return Type.Enum(values, { type: 'string', ...options });
}

/** The code of an error. */
export const ERROR_CODE = textEnum(Object.keys(ERRORS) as ErrorCode[]);

/** `schema` of one type, or null. */
export function nullable<S extends { readonly type: string }>(schema: S): TUnsafe<Static<S> | null>;
export function nullable<S extends TEnum>(schema: S): TUnsafe<Static<S> | null>;
export function nullable(schema: { readonly type?: string; readonly enum?: readonly unknown[] }): TUnsafe {
  return Type.Unsafe({
    ...schema,
    type: [schema.type ?? 'string', 'null'],
    ...(schema.enum === undefined ? {} : { enum: [...schema.enum, null] }),
  });
}
