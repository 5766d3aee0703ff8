import type { FastifySchemaValidationError } from 'fastify';
import { InputError, type InputSource } from '../../errors.ts';
import { RESOURCE_FORMATS } from '../../resource-name.ts';
import { toSchemaFaults, type TextFormat, type TextFormats } from '../../tasks/schema-faults.ts';

const MAX_PAGE = 200;

/** Formats of the routes' schemas. All that stands in a query is text. */
export const REQUEST_FORMATS = {
  ...RESOURCE_FORMATS,
  count: { validate: (text) => /^\d{1,15}$/.test(text), meaning: 'must be a whole number' },
  'page-limit': {
    validate: (text) => /^\d{1,3}$/.test(text) && Number(text) >= 1 && Number(text) <= MAX_PAGE,
    meaning: `must be a whole number from 1 to ${MAX_PAGE}`,
  },
} as const satisfies TextFormats;

/** The parts of a request, as Fastify calls them. */
const SOURCES: Readonly<Record<string, InputSource>> = {
  body: 'body',
  params: 'path',
  querystring: 'query',
  headers: 'header',
};

/** What Fastify found in the part `context` of a request. */
export function toInputError(errors: readonly FastifySchemaValidationError[], context: string): InputError {
  return new InputError(toSchemaFaults(errors, REQUEST_FORMATS), SOURCES[context]);
}

/** Checks the file name of a resource in the path, where the body may have another. @throws InputError */
export function assertFileName(name: string): string {
  return assertFormat(name, RESOURCE_FORMATS['resource-filename'], { source: 'path', field: 'filename' });
}

/** Checks the folder of a form or of a path, which no schema checks. @throws InputError */
export function assertFolder(folder: unknown, source: 'body' | 'path' = 'body'): string {
  return assertFormat(folder, RESOURCE_FORMATS['resource-folder'], { source, field: 'folder' });
}

function assertFormat(
  value: unknown,
  { validate, meaning }: TextFormat,
  { source, field }: { readonly source: InputSource; readonly field: string },
): string {
  if (typeof value === 'string' && validate(value)) return value;
  throw new InputError([{ type: 'value_error', path: [field], message: meaning }], source);
}
