import type {
  Static,
  TArray,
  TArrayOptions,
  TBoolean,
  TEnum,
  TInteger,
  TLiteral,
  TNumber,
  TNumberOptions,
  TObject,
  TObjectOptions,
  TOptional,
  TProperties,
  TSchema,
  TSchemaOptions,
  TString,
  TStringOptions,
  TUnsafe,
} from 'typebox';
import { ERRORS, type ErrorCode } from './errors.ts';
import type { JsonObject, JsonValue } from './json.ts';

/**
 * Makes JSON Schemas from which TypeBox's types follow. TypeBox's own code stays out: it has 300 modules, which cost
 * a third of the start and 7 MiB of idle memory.
 */
export const Type = {
  String: (options: TStringOptions = {}) => ({ type: 'string', ...options }) as TString,
  Boolean: (options: TSchemaOptions = {}) => ({ type: 'boolean', ...options }) as TBoolean,
  Integer: (options: TNumberOptions = {}) => ({ type: 'integer', ...options }) as TInteger,
  Number: (options: TNumberOptions = {}) => ({ type: 'number', ...options }) as TNumber,

  Literal<Value extends number>(value: Value): TLiteral<Value> {
    return { type: 'number', const: value } as TLiteral<Value>;
  },

  Array<Item extends TSchema>(items: Item, options: TArrayOptions = {}): TArray<Item> {
    return { type: 'array', items, ...options } as TArray<Item>;
  },

  /** An object with all of `properties`, but for those made by `Optional`. */
  Object<Properties extends TProperties>(properties: Properties, options: TObjectOptions = {}): TObject<Properties> {
    const names = Object.keys(properties).filter((name) => !(OPTIONAL in (properties[name] ?? {})));
    const required = names.length === 0 ? {} : { required: names };
    return { type: 'object', ...required, properties, ...options } as TObject<Properties>;
  },

  /** A property that may be absent. */
  Optional<Schema extends TSchema>(schema: Schema): TOptional<Schema> {
    const marked = { ...schema };
    Object.defineProperty(marked, OPTIONAL, { value: true });
    return marked as TOptional<Schema>;
  },

  /** Any schema, with a type of its own. */
  Unsafe: <T>(schema: TSchema) => schema as TUnsafe<T>,
};

/** Not enumerable, so it is no keyword of the schema, and no copy has it. */
const OPTIONAL = Symbol('optional');

/** Any JSON value. */
export const JSON_VALUE = Type.Unsafe<JsonValue>({});

/** An object with any fields. */
export const JSON_OBJECT = Type.Unsafe<JsonObject>({ type: 'object', additionalProperties: true });

/** One of some texts. A union of literals would report a fault for each of them. */
export function textEnum<Values extends string[]>(
  values: readonly [...Values],
  options: TSchemaOptions = {},
): TEnum<Values> {
  const schema: TSchema = { enum: values, type: 'string', ...options };
  return schema as TEnum<Values>;
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
