import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { LoaderError } from '../errors.ts';
import type { EndedRequest } from '../metrics/metrics.ts';
import type { ResourceName } from '../resource-name.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** What a route adds to the request's line in the log. */
    facts: RequestFacts;
  }
  interface FastifyContextConfig {
    /** It is asked every few seconds: its line is for level debug, unless it fails. */
    isHealthCheck?: boolean;
  }
}

export interface RequestFacts {
  resource?: ResourceName;
  /** Bytes of plaintext that were sent or received. */
  bytes?: number;
  /** Where the big part of a load came from. */
  source?: 'cache' | 'cdn';
  /** Why the request failed, or its response was broken off. */
  failure?: RequestFailure;
}

export interface RequestFailure {
  readonly known: LoaderError;
  /** What was thrown: the same, or something unforeseen. */
  readonly thrown: unknown;
}

/** The header in which a client, or a proxy before it, may give a request its ID. Each response has it. */
export const REQUEST_ID_HEADER = 'x-request-id';
/** No other text than that of usual IDs, since it goes to the log and back to the client. */
const REQUEST_ID = /^[\w.:/+=@-]{1,128}$/;
/** States that pass by themselves or that somebody knows of: nothing is out of order. */
const EXPECTED: readonly string[] = ['client_closed', 'client_stalled', 'not_authenticated', 'shutting_down'];

/** The ID of a request: that of its header where it has one, otherwise one that no other request has. */
export function requestId({ headers }: IncomingMessage): string {
  const given = headers[REQUEST_ID_HEADER];
  return typeof given === 'string' && REQUEST_ID.test(given) ? given : randomUUID();
}

type OnEnd = (request: EndedRequest) => void;

/**
 * Writes one line for each request when it is over, and tells its ID in the response. `onEnd` gets what the line tells.
 * Register it before all guards.
 */
export function registerRequestLog(app: FastifyInstance, onEnd: OnEnd): void {
  app.decorateRequest('facts');
  app.addHook('onRequest', (request, reply, done) => {
    beginRequestLine(request, reply, onEnd);
    done();
  });
}

/** For requests that fail before their first hook. */
export function beginRequestLine(request: FastifyRequest, reply: FastifyReply, onEnd: OnEnd): void {
  request.facts = {};
  reply.raw.setHeader(REQUEST_ID_HEADER, request.id); // Where it stands also when a handler writes the response itself.
  // It comes after the last byte, and also when the client has left or the response was broken off.
  reply.raw.once('close', () => onEnd(logRequest(request, reply)));
}

/** Puts a failure into the request's line, or into one of its own where that line is written: its client has left. */
export function noteFailure(reply: FastifyReply, failure: RequestFailure): void {
  const { facts, log } = reply.request;
  const { known, thrown } = failure;
  facts.failure ??= failure;
  if (!reply.raw.closed || EXPECTED.includes(known.code)) return;
  log.error({ code: known.code, err: thrown }, `The request failed when its client had left: ${known.message}`);
}

function logRequest(
  { log, method, ip, routeOptions, facts, is404 }: FastifyRequest,
  reply: FastifyReply,
): EndedRequest {
  const { resource, bytes, source } = facts;
  const { headersSent, statusCode, writableFinished } = reply.raw;
  const route = is404 ? '(none)' : (routeOptions.url ?? '(none)');
  const failure = facts.failure ?? (writableFinished ? undefined : clientHasLeft());
  const status = headersSent ? statusCode : undefined;
  const ms = reply.elapsedTime;
  const level = levelOf(failure, reply, routeOptions.config.isHealthCheck);
  const line = {
    method,
    route,
    ...(status !== undefined && { status }),
    ms: Math.round(ms),
    client: ip,
    ...(resource && { resource: `${resource.folder}/${resource.name}` }),
    ...(bytes !== undefined && { bytes }),
    ...(source && { source }),
    ...(failure && { code: failure.known.code }),
    ...(failure && level === 'error' && { err: failure.thrown }),
  };
  const end = !headersSent ? 'no response' : writableFinished ? String(statusCode) : `${statusCode}, broken off`;
  const why = failure === undefined ? '' : `: ${failure.known.message}`;
  log[level](line, `${method} ${route} ${end}${why}`);
  return { method, route, status, ms, code: failure?.known.code, bytes, source };
}

/** A refusal (4xx) is the client's business, and each login's failure has a line of its own. */
function levelOf(
  failure: RequestFailure | undefined,
  { raw: { headersSent, statusCode, writableFinished } }: FastifyReply,
  isHealthCheck = false,
): 'debug' | 'info' | 'error' {
  if (failure === undefined) return isHealthCheck ? 'debug' : 'info';
  const isRefusal = headersSent && writableFinished && statusCode < 500;
  return isRefusal || EXPECTED.includes(failure.known.code) ? 'info' : 'error';
}

function clientHasLeft(): RequestFailure {
  const known = new LoaderError('client_closed', 'The client closed the connection.');
  return { known, thrown: known };
}
