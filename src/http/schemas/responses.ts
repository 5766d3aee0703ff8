import type { IncomingMessage, ServerResponse } from 'node:http';
// Its types let the schema of a route have an operationId, a summary and tags.
import type {} from '@fastify/swagger';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify';
import type { Static, TSchema, TUnsafe } from 'typebox';
import { textEnum, Type } from '../../json-schemas.ts';
import { ERROR, VALIDATION_ERROR } from './error.ts';

/** The app as the routes see it: the schema of a route gives the types of its handler. */
export type HttpApp = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

/** Refers to a shared schema, so that the document names it once. The description is that of a response. */
export function ref<S extends TSchema>(schema: S, description?: string): TUnsafe<Static<S>> {
  const { $id } = schema as { readonly $id?: string };
  if ($id === undefined) throw new Error('a schema that is referred to needs an $id');
  return Type.Unsafe<Static<S>>({ $ref: `${$id}#`, ...(description === undefined ? {} : { description }) });
}

/** What a failure of each status means. 422 has a shape of its own. */
const FAILURES = {
  400: 'The bytes received are not a valid HTTP request.',
  401: 'The API key is missing or unknown.',
  403: 'A browser sent the request for another site, or to a name that is not in ALLOWED_HOSTS.',
  404: 'The resource, the task, the schedule or the image archive does not exist.',
  409: 'There are too many already, or the resource is just being replaced.',
  413: 'The body is too large.',
  414: 'The path and the query are too long.',
  431: 'The headers are too large, or too many.',
  500: 'The request failed; `code` says why.',
  503: 'The Loader is stopping or too busy, or something that the request needs is out of order; `code` says what.',
  507: 'The disk of the cache failed where it was needed.',
} as const;

const ALWAYS = [400, 401, 403, 414, 431, 500, 503] as const;

type Always = (typeof ALWAYS)[number];

/** Responses for the failures of a route. Each route can also fail with those of `ALWAYS`. */
export function failures<Status extends keyof typeof FAILURES>(
  ...statuses: Status[]
): Readonly<Record<Status | Always, TUnsafe<Static<typeof ERROR>>>> {
  const all = [...new Set<keyof typeof FAILURES>([...statuses, ...ALWAYS])].sort();
  return Object.fromEntries(all.map((status) => [status, ref(ERROR, FAILURES[status])])) as Record<
    Status | Always,
    TUnsafe<Static<typeof ERROR>>
  >;
}

/** The response to a request whose input is at fault. */
export const INVALID_INPUT = {
  422: ref(VALIDATION_ERROR, 'The input is at fault: which fields, and what they must be.'),
};

/** A time in requests and responses. */
export const TIME = Type.String({ description: 'ISO 8601, UTC.', examples: ['2026-01-02T03:04:05.678Z'] });

export const OK = Type.Object(
  { status: textEnum(['ok']) },
  { description: 'It is done.', examples: [{ status: 'ok' }] },
);

/** A response that a handler writes itself, byte by byte: it is described, and serialised by nothing. */
export function streamResponse(mediaType: string, description: string): object {
  return { description, content: { [mediaType]: { schema: { type: 'string', description } } } };
}
