import type { ApiClient } from '../../api-client/api-client.ts';
import { abortWhenClientLeaves } from '../bodies/client-abort.ts';
import { headersOf } from '../bodies/representation.ts';
import { sendBody } from '../bodies/send-body.ts';
import { assertFileName } from '../errors/request-faults.ts';
import { failures, INVALID_INPUT, streamResponse, type HttpApp } from '../schemas/responses.ts';
import { LOAD_BODY, RESOURCE_PARAMS } from '../schemas/resource.ts';

export interface LoadRoutesOptions {
  readonly apiClient: Pick<ApiClient, 'load'>;
  readonly clientStallTimeoutMs: number;
}

/** POST /load/{filename}: 200 with the plaintext, 500 for every failure. */
export function registerLoadRoutes(app: HttpApp, { apiClient, clientStallTimeoutMs }: LoadRoutesOptions): void {
  app.post(
    '/load/:filename',
    {
      schema: {
        operationId: 'loadResource',
        summary: 'Load a resource, decrypted',
        tags: ['resources'],
        params: RESOURCE_PARAMS,
        body: LOAD_BODY,
        response: {
          ...failures(413),
          ...INVALID_INPUT,
          200: streamResponse(
            'application/octet-stream',
            'The plaintext, with its exact Content-Length, and ETag and Repr-Digest of its version.',
          ),
        },
      },
      config: { failureStatus: 500 },
    },
    async (request, reply) => {
      // As in the original, the name in the body has precedence over the name in the path.
      const name = request.body.filename ?? assertFileName(request.params.filename);
      const resource = { folder: request.body.folder, name };
      request.facts.resource = resource;
      const abort = abortWhenClientLeaves(reply);
      await using body = await apiClient.load(resource, abort.signal);
      request.facts.source = body.source;
      const options = { stallTimeoutMs: clientStallTimeoutMs, abort, headers: headersOf(body) };
      await sendBody(reply, { length: body.length, chunks: body.read() }, options);
    },
  );
}
