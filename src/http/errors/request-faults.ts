import type { FastifySchemaValidationError } from 'fastify';
import { LoaderError } from '../../errors.ts';
import { RESOURCE_FORMATS } from '../../resource-name.ts';
import { ScheduleFieldError } from '../../tasks/schedule-field-error.ts';
import { ParametersError } from '../../tasks/provider.ts';
import { UnknownProviderError } from '../../tasks/task-runner.ts';

/** One fault of a request, in FastAPI's words, so that the original's clients can read it. */
export interface ValidationItem {
  readonly type: string;
  /** Where: `body` or `path`, then the field. */
  readonly loc: readonly string[];
  /** What is wrong; never quotes the input, which may be a password. */
  readonly msg: string;
}

/** A request that is refused with 422 and a list of its faults. */
export class RequestValidationError extends LoaderError {
  readonly items: readonly ValidationItem[];

  constructor(items: readonly ValidationItem[]) {
    super('validation_failed', items.map((item) => `${item.loc.join('.')}: ${item.msg}`).join('; '));
    this.items = items;
  }
}

const MAX_PAGE = 200;
/** Faults of one request that are told. */
const MAX_ITEMS = 50;

/** Formats of the routes' schemas. What stands in a query is text. */
export const FORMATS = {
  ...RESOURCE_FORMATS,
  count: (text: string) => /^\d{1,15}$/.test(text),
  'page-limit': (text: string) => /^\d{1,3}$/.test(text) && Number(text) >= 1 && Number(text) <= MAX_PAGE,
} as const;

const FORMAT_MESSAGES: Readonly<Record<string, string>> = {
  'resource-filename':
    'Value error, must be one path segment of 1 to 255 bytes of UTF-8, without / \\ or control characters, and not . or ..',
  'resource-folder':
    'Value error, must be 1 to 8 path segments joined by /, each of 1 to 255 bytes of UTF-8, without \\ or control characters, and not . or ..',
  count: 'Value error, must be a whole number',
  'page-limit': `Value error, must be a whole number from 1 to ${MAX_PAGE}`,
};

const TYPE_MESSAGES: Readonly<Record<string, { type: string; msg: string }>> = {
  string: { type: 'string_type', msg: 'Input should be a valid string' },
  object: {
    type: 'model_attributes_type',
    msg: 'Input should be a valid dictionary or object to extract fields from',
  },
  boolean: { type: 'bool_type', msg: 'Input should be a valid boolean' },
  integer: { type: 'int_type', msg: 'Input should be a valid integer' },
  number: { type: 'float_type', msg: 'Input should be a valid number' },
  array: { type: 'list_type', msg: 'Input should be a valid list' },
};

export const MISSING_MESSAGE = 'Field required';

/** Where each of Fastify's contexts is for FastAPI. */
const LOCATIONS: Readonly<Record<string, string>> = { params: 'path', querystring: 'query', headers: 'header' };

/** Ajv's errors as FastAPI's items. `context` is where Fastify looked: body, params, querystring or headers. */
export function toValidationItems(
  errors: readonly FastifySchemaValidationError[],
  context: string,
  path: readonly string[] = [],
): ValidationItem[] {
  const root = [LOCATIONS[context] ?? context, ...path];
  return errors
    .slice(0, MAX_ITEMS)
    .map((error) => toValidationItem(error, [...root, ...error.instancePath.split('/').slice(1)]));
}

function toValidationItem({ keyword, params, message }: FastifySchemaValidationError, loc: string[]): ValidationItem {
  switch (keyword) {
    case 'required':
      return { type: 'missing', loc: [...loc, String(params['missingProperty'])], msg: MISSING_MESSAGE };
    case 'additionalProperties':
      // The name of what is too much is input as well: it is not quoted.
      return { type: 'extra_forbidden', loc, msg: 'Extra inputs are not permitted' };
    case 'type': {
      const known = TYPE_MESSAGES[String(params['type'])];
      return { type: known?.type ?? 'type_error', loc, msg: known?.msg ?? 'Input has a wrong type' };
    }
    case 'enum':
      return { type: 'literal_error', loc, msg: `Input should be ${oneOf(params['allowedValues'] as string[])}` };
    case 'format':
      return { type: 'value_error', loc, msg: FORMAT_MESSAGES[String(params['format'])] ?? 'Value error' };
    default:
      // Limits of numbers and lengths: Ajv says what they are, and quotes nothing.
      return { type: 'value_error', loc, msg: `Value error, ${message ?? keyword}` };
  }
}

function oneOf(values: readonly string[]): string {
  const quoted = values.map((value) => `'${value}'`);
  return quoted.length < 2 ? quoted.join('') : `${quoted.slice(0, -1).join(', ')} or ${quoted.at(-1) ?? ''}`;
}

/** What the tasks refuse, as faults of the body; `path` leads to the parameters there. */
export function toRequestError(error: unknown, path: readonly string[] = []): unknown {
  if (error instanceof ParametersError) {
    return new RequestValidationError(toValidationItems(error.errors, 'body', path));
  }
  if (error instanceof UnknownProviderError) {
    const msg = `Input should be ${oneOf(error.known)}`;
    return new RequestValidationError([{ type: 'literal_error', loc: ['body', 'provider'], msg }]);
  }
  if (error instanceof ScheduleFieldError) {
    const msg = `Value error, ${error.message}`;
    return new RequestValidationError([{ type: 'value_error', loc: ['body', error.field], msg }]);
  }
  return error;
}

/** Checks a resource's file name that no schema could check, since it is known where it came from only now. */
export function assertFileName(name: string, loc: readonly string[]): string {
  if (RESOURCE_FORMATS['resource-filename'](name)) return name;
  throw new RequestValidationError([{ type: 'value_error', loc, msg: FORMAT_MESSAGES['resource-filename'] ?? '' }]);
}

export function assertFolder(folder: unknown, loc: readonly string[]): string {
  if (typeof folder === 'string' && RESOURCE_FORMATS['resource-folder'](folder)) return folder;
  throw new RequestValidationError([{ type: 'value_error', loc, msg: FORMAT_MESSAGES['resource-folder'] ?? '' }]);
}
