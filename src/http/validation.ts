import type { FastifySchemaValidationError } from 'fastify';
import { isSafeFolder, isSafeSegment } from '../cache/safe-path.ts';
import { LoaderError } from '../errors.ts';

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

/** Formats of the routes' schemas. */
export const FORMATS = {
  'resource-filename': isSafeSegment,
  'resource-folder': isSafeFolder,
} as const;

const FORMAT_MESSAGES: Readonly<Record<string, string>> = {
  'resource-filename':
    'Value error, must be one path segment of 1 to 255 bytes of UTF-8, without / \\ or control characters, and not . or ..',
  'resource-folder':
    'Value error, must be 1 to 8 path segments joined by /, each of 1 to 255 bytes of UTF-8, without \\ or control characters, and not . or ..',
};

const TYPE_MESSAGES: Readonly<Record<string, { type: string; msg: string }>> = {
  string: { type: 'string_type', msg: 'Input should be a valid string' },
  object: {
    type: 'model_attributes_type',
    msg: 'Input should be a valid dictionary or object to extract fields from',
  },
};

export const MISSING_MESSAGE = 'Field required';

/** Ajv's errors as FastAPI's items. `context` is where Fastify looked: body, params, querystring or headers. */
export function toValidationItems(errors: readonly FastifySchemaValidationError[], context: string): ValidationItem[] {
  const root = context === 'params' ? 'path' : context;
  return errors.map((error) => {
    const field = error.instancePath.split('/').slice(1);
    if (error.keyword === 'required') {
      return { type: 'missing', loc: [root, ...field, String(error.params['missingProperty'])], msg: MISSING_MESSAGE };
    }
    if (error.keyword === 'type') {
      const known = TYPE_MESSAGES[String(error.params['type'])];
      return { type: known?.type ?? 'type_error', loc: [root, ...field], msg: known?.msg ?? 'Input has a wrong type' };
    }
    if (error.keyword === 'format') {
      const msg = FORMAT_MESSAGES[String(error.params['format'])];
      return { type: 'value_error', loc: [root, ...field], msg: msg ?? 'Value error' };
    }
    return { type: 'value_error', loc: [root, ...field], msg: `Value error, ${error.keyword}` };
  });
}

/** Checks a resource's file name that no schema could check, since it is known where it came from only now. */
export function assertFileName(name: string, loc: readonly string[]): string {
  if (isSafeSegment(name)) return name;
  throw new RequestValidationError([{ type: 'value_error', loc, msg: FORMAT_MESSAGES['resource-filename'] ?? '' }]);
}

export function assertFolder(folder: unknown, loc: readonly string[]): string {
  if (typeof folder === 'string' && isSafeFolder(folder)) return folder;
  throw new RequestValidationError([{ type: 'value_error', loc, msg: FORMAT_MESSAGES['resource-folder'] ?? '' }]);
}
