import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { asLoaderError, ERRORS, InputError, LoaderError, PassingError, type ErrorCode } from '../../errors.ts';
import { MISSING_MESSAGE } from '../../tasks/schema-faults.ts';
import { urlTooLong } from '../guards/head-bounds.ts';
import { noteFailure } from '../request-log.ts';
import { toErrorBody, type ErrorBody } from '../schemas/error.ts';
import { toInputError } from './request-faults.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The status of all failures of this route, where the contract has one; `http` for what each is called in HTTP. */
    failureStatus?: 401 | 500 | 'http';
  }
}

/** Responds to every failure with `{"detail", "code"}` with its status from the table of errors.ts. */
export function registerErrorHandler(app: FastifyInstance): void {
  app.setErrorHandler(answerError);
  app.setNotFoundHandler(async (_request, reply) => {
    return await reply.code(404).send({ detail: 'Not Found', code: 'not_found' } satisfies ErrorBody);
  });
}

/** The response to `error`, which may come before Fastify knows a route. */
export function answerError(error: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const known = hasLeft(request) ? clientClosed(error) : toLoaderError(error);
  const status = statusOf(known, request);
  noteFailure(reply, { known, thrown: error });
  if (known.code === 'forbidden') void reply.header('www-authenticate', 'Bearer');
  if (status === 503 && known instanceof PassingError) void reply.header('retry-after', retryAfter(known));
  if (!request.raw.complete) drainForAWhile(reply);
  return reply.code(status).send(toErrorBody(known));
}

/** Whether the client closed the connection within its body. Fastify's error is then about the body. */
function hasLeft({ raw }: FastifyRequest): boolean {
  return raw.destroyed && !raw.complete;
}

function clientClosed(cause: unknown): LoaderError {
  return new LoaderError('client_closed', 'The client closed the connection within the body.', { cause });
}

/** For a path that exists, but not with the method asked for. */
export async function answerMethodNotAllowed(reply: FastifyReply, allowed: readonly string[]): Promise<FastifyReply> {
  void reply.header('allow', allowed.join(', '));
  return await reply.code(405).send({ detail: 'Method Not Allowed', code: 'method_not_allowed' } satisfies ErrorBody);
}

/** How long a refused client may go on sending its body, in ms, before its connection is closed. */
const DRAIN_MS = 10_000;

/**
 * Node reads and drops what a client still sends after the response. To close at once would reset the connection of a
 * client that reads the response only after its own last byte. To wait for ever would let clients send without end.
 */
function drainForAWhile(reply: FastifyReply): void {
  const { raw } = reply.request;
  // Fastify asks for the close after a body that is too large.
  void reply.removeHeader('connection');
  reply.raw.once('finish', () => {
    // The parser of a form would hold the body back, since it is no longer read from.
    raw.unpipe();
    raw.resume();
    const timer = setTimeout(() => raw.destroy(), DRAIN_MS);
    timer.unref();
    raw.once('close', () => clearTimeout(timer));
  });
}

function statusOf(failure: LoaderError, request: FastifyRequest): number {
  const { status } = ERRORS[failure.code];
  if (status !== 'route') return status;
  const { failureStatus = 500 } = request.routeOptions.config;
  if (failureStatus !== 'http') return failureStatus;
  return HTTP_STATUSES[failure.code] ?? (failure instanceof PassingError ? 503 : 500);
}

/** What failures of a resource are called in HTTP (RFC 9110 section 15, RFC 4918 section 11.5). */
const HTTP_STATUSES: Partial<Record<ErrorCode, number>> = {
  not_authenticated: 401,
  resource_not_in_api: 404,
  resource_not_in_cdn: 404,
  upload_unfinished: 409,
  manifest_missing: 409,
  cdn_object_changed: 409,
  cache_unusable: 507,
  disk_full_ahead: 507,
};

/** Of a failure that tells no time, in s. */
const DEFAULT_RETRY_AFTER_S = 5;

/** RFC 9110 section 10.2.3. */
function retryAfter({ retryAfterMs }: PassingError): number {
  return retryAfterMs === undefined ? DEFAULT_RETRY_AFTER_S : Math.ceil(retryAfterMs / 1000);
}

const NO_OBJECT_MESSAGE =
  'Input should be a valid dictionary or object to extract fields from; send JSON with Content-Type: application/json';

/** What Fastify and its plugins throw, in our codes. */
function toLoaderError(error: FastifyError): LoaderError {
  if (error instanceof LoaderError) return error;
  if (error.validation !== undefined) return toInputError(error.validation, error.validationContext ?? 'body');
  switch (error.code) {
    case 'FST_ERR_CTP_EMPTY_JSON_BODY':
      return new InputError([{ type: 'missing', path: [], message: MISSING_MESSAGE }]);
    case 'FST_ERR_CTP_INVALID_JSON_BODY':
      return new InputError([{ type: 'json_invalid', path: [], message: 'JSON decode error' }]);
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
      return new InputError([{ type: 'model_attributes_type', path: [], message: NO_OBJECT_MESSAGE }]);
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new LoaderError('body_too_large', 'The body is larger than 1 MiB.');
    case 'FST_ERR_MAX_PARAM_LENGTH':
      return urlTooLong();
    case 'FST_ERR_BAD_URL':
      return new InputError(
        [{ type: 'value_error', path: [], message: 'the path is not valid percent-encoding' }],
        'path',
      );
    default:
      return asLoaderError(error);
  }
}
