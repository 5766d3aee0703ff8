import type { InputFault } from '../errors.ts';

/** What a JSON Schema calls the form of a text. */
export interface TextFormat {
  readonly validate: (text: string) => boolean;
  /** What a text of this form must be, such as `must be a whole number`. */
  readonly meaning: string;
}

export type TextFormats = Readonly<Record<string, TextFormat>>;

/** What is used of an error of Ajv. Fastify hands on the same. */
export interface SchemaError {
  readonly keyword: string;
  /** A JSON pointer. */
  readonly instancePath: string;
  readonly params: Readonly<Record<string, unknown>>;
  /** The schema that was not met; Ajv tells it with its option `verbose`. */
  readonly parentSchema?: unknown;
}

export const MISSING_MESSAGE = 'Field required';

/** Faults of one input that are told. */
const MAX_FAULTS = 50;
/**
 * A name that is not in the schema is input too, and may be a password that a client put in the wrong place. Only a name
 * that reads like a field's is shown.
 */
const FIELD_NAME = /^[a-z_]{1,64}$/i;
const HIDDEN_NAME = '(name not shown)';

const TYPE_FAULTS: Readonly<Record<string, readonly [type: string, message: string]>> = {
  string: ['string_type', 'Input should be a valid string'],
  object: ['model_attributes_type', 'Input should be a valid dictionary or object to extract fields from'],
  boolean: ['bool_type', 'Input should be a valid boolean'],
  integer: ['int_type', 'Input should be a valid integer'],
  number: ['float_type', 'Input should be a valid number'],
  array: ['list_type', 'Input should be a valid list'],
};

/** Words for each keyword that limits a value; `limit` is the keyword's own value. */
const LIMITS: Readonly<Record<string, (limit: number) => string>> = {
  minimum: (limit) => `must be ${limit} or more`,
  maximum: (limit) => `must be ${limit} or less`,
  exclusiveMinimum: (limit) => `must be more than ${limit}`,
  exclusiveMaximum: (limit) => `must be less than ${limit}`,
  minLength: (limit) => `must have at least ${count(limit, 'character')}`,
  maxLength: (limit) => `must have at most ${count(limit, 'character')}`,
  minItems: (limit) => `must have at least ${count(limit, 'item')}`,
  maxItems: (limit) => `must have at most ${count(limit, 'item')}`,
  minProperties: (limit) => `must have at least ${count(limit, 'field')}`,
  maxProperties: (limit) => `must have at most ${count(limit, 'field')}`,
};

/** Ajv's errors in FastAPI's words. Values of the input are never quoted. */
export function toSchemaFaults(errors: readonly SchemaError[], formats: TextFormats): InputFault[] {
  return errors.slice(0, MAX_FAULTS).map((error) => toSchemaFault(error, formats));
}

/** Says which values there are, in FastAPI's words. */
export function oneOf(values: readonly string[]): string {
  return `Input should be ${joined(values.map((value) => `'${value}'`))}`;
}

function toSchemaFault(error: SchemaError, formats: TextFormats): InputFault {
  const { keyword, params } = error;
  const path = error.instancePath.split('/').slice(1).map(unescapePointer);
  switch (keyword) {
    case 'required':
      return { type: 'missing', path: [...path, String(params['missingProperty'])], message: MISSING_MESSAGE };
    case 'additionalProperties': {
      const name = String(params['additionalProperty']);
      const shown = FIELD_NAME.test(name) ? name : HIDDEN_NAME;
      return { type: 'extra_forbidden', path: [...path, shown], message: 'Extra inputs are not permitted' };
    }
    case 'type': {
      const [type, message] = TYPE_FAULTS[String(params['type'])] ?? ['type_error', 'Input has a wrong type'];
      return { type, path, message };
    }
    case 'enum':
      return { type: 'literal_error', path, message: oneOf(params['allowedValues'] as string[]) };
    case 'format': {
      const format = String(params['format']);
      return { type: 'value_error', path, message: formats[format]?.meaning ?? `must be of the form ${format}` };
    }
    default: {
      const limit = LIMITS[keyword]?.(Number(params['limit'])) ?? `must meet the schema's ${keyword}`;
      return { type: 'value_error', path, message: limit + choiceOf(error) };
    }
  }
}

/** The fields of an object that has too few or too many. */
function choiceOf({ keyword, parentSchema }: SchemaError): string {
  if (keyword !== 'minProperties' && keyword !== 'maxProperties') return '';
  const { properties = {} } = (parentSchema ?? {}) as { readonly properties?: object };
  const names = Object.keys(properties);
  return names.length === 0 ? '' : ` of ${joined(names)}`;
}

function count(limit: number, noun: string): string {
  return limit === 1 ? `1 ${noun}` : `${limit} ${noun}s`;
}

function joined(words: readonly string[]): string {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} or ${words.at(-1) ?? ''}`;
}

function unescapePointer(segment: string): string {
  return segment.replaceAll('~1', '/').replaceAll('~0', '~');
}
