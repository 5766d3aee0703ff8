import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Static } from 'typebox';
import type { ApiClient } from '../../api-client/api-client.ts';
import type { OpenResource } from '../../resources/download-service.ts';
import { abortWhenClientLeaves } from '../bodies/client-abort.ts';
import { headersOf, isNotModified, wantedRange } from '../bodies/representation.ts';
import { sendBody } from '../bodies/send-body.ts';
import { assertFileName, assertFolder } from '../errors/request-faults.ts';
import { failures, INVALID_INPUT, streamResponse, type HttpApp } from '../schemas/responses.ts';
import {
  RESOURCE_HEADERS,
  RESOURCE_LIST,
  RESOURCE_LIST_QUERY,
  RESOURCE_PATH,
  toResourceView,
} from '../schemas/resource.ts';

export interface ResourceRoutesOptions {
  readonly apiClient: Pick<ApiClient, 'cachedResources' | 'load'>;
  readonly clientStallTimeoutMs: number;
}

const TAGS = ['resources'];
const DEFAULT_PAGE = 50;

/** GET and HEAD /resources/{folder}/{filename}: as POST /load, with the ways of HTTP. GET /resources: what is cached. */
export function registerResourceRoutes(app: HttpApp, options: ResourceRoutesOptions): void {
  const { apiClient, clientStallTimeoutMs } = options;
  app.get(
    '/resources',
    {
      schema: {
        operationId: 'listResources',
        summary: 'The resources in the cache, page by page',
        tags: TAGS,
        querystring: RESOURCE_LIST_QUERY,
        response: { ...failures(), ...INVALID_INPUT, 200: RESOURCE_LIST },
      },
    },
    async ({ query }, reply) => {
      const { signal } = abortWhenClientLeaves(reply);
      const { limit, ...rest } = query;
      const page = await apiClient.cachedResources({ ...rest, limit: Number(limit ?? DEFAULT_PAGE) }, signal);
      return { resources: page.resources.map(toResourceView), next_cursor: page.nextCursor };
    },
  );

  const schema = { params: RESOURCE_PATH, headers: RESOURCE_HEADERS };
  const config = { failureStatus: 'http' } as const;
  const handler = async (request: FastifyRequest<{ Params: Static<typeof RESOURCE_PATH> }>, reply: FastifyReply) => {
    const segments = request.params['*'].split('/');
    const name = assertFileName(segments.pop() ?? '');
    const resource = { folder: assertFolder(segments.join('/'), 'path'), name };
    request.facts.resource = resource;
    const abort = abortWhenClientLeaves(reply);
    await using body = await apiClient.load(resource, abort.signal);
    request.facts.source = body.source;
    await answer(reply, body, { stallTimeoutMs: clientStallTimeoutMs, abort });
  };
  // A HEAD that Fastify makes of the GET would tell a length of 0.
  app.head('/resources/*', { schema: { ...schema, hide: true }, config }, handler);
  app.get(
    '/resources/*',
    {
      schema: {
        ...schema,
        operationId: 'getResource',
        summary: 'A resource, decrypted, or a range of it',
        tags: TAGS,
        response: {
          ...failures(404, 409, 507),
          ...INVALID_INPUT,
          200: streamResponse('application/octet-stream', 'The plaintext, with its exact Content-Length and ETag.'),
          206: streamResponse('application/octet-stream', 'The range that was asked for.'),
          304: { type: 'null', description: 'The client has this version already.' },
          416: { type: 'null', description: 'There is no such range; Content-Range tells the length.' },
        },
      },
      config,
      exposeHeadRoute: false,
    },
    handler,
  );
}

async function answer(
  reply: FastifyReply,
  body: OpenResource,
  options: { readonly stallTimeoutMs: number; readonly abort: AbortController },
): Promise<void> {
  const { request } = reply;
  const headers = { ...headersOf(body), 'accept-ranges': 'bytes' };
  if (isNotModified(request.headers, headers)) {
    await reply.code(304).headers(headers).send();
    return;
  }
  // A range of HEAD has no meaning (RFC 9110 section 14.2).
  const range = request.method === 'HEAD' ? 'whole' : wantedRange(request.headers, headers, body.length);
  if (range === 'unsatisfiable') {
    await reply
      .code(416)
      .headers({ ...headers, 'content-range': `bytes */${body.length}` })
      .send();
    return;
  }
  const { start, end } = range === 'whole' ? { start: 0, end: body.length } : range;
  const described = { ...headers, 'content-type': 'application/octet-stream' };
  if (request.method === 'HEAD') {
    await reply
      .code(200)
      .headers({ ...described, 'content-length': body.length })
      .send();
    return;
  }
  await sendBody(
    reply,
    { length: end - start, chunks: body.read({ start, end }) },
    {
      ...options,
      ...(range === 'whole'
        ? { status: 200, headers: described }
        : { status: 206, headers: { ...described, 'content-range': `bytes ${start}-${end - 1}/${body.length}` } }),
    },
  );
}
