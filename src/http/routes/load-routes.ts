import type { FastifyInstance } from 'fastify';
import { abortWhenClientLeaves } from '../bodies/client-abort.ts';
import type { ApiClient } from '../../api-client/api-client.ts';
import { sendBody } from '../bodies/send-body.ts';
import { assertFileName } from '../errors/request-faults.ts';

export interface LoadRoutesOptions {
  readonly apiClient: Pick<ApiClient, 'load'>;
  readonly clientStallTimeoutMs: number;
}

interface LoadRequest {
  Params: { readonly filename: string };
  Body: { readonly filename?: string; readonly folder: string };
}

const LOAD_BODY = {
  type: 'object',
  required: ['folder'],
  properties: {
    filename: { type: 'string', format: 'resource-filename' },
    folder: { type: 'string', format: 'resource-folder' },
  },
} as const;

/** POST /load/{filename}: 200 with the plaintext, 500 for every failure. */
export function registerLoadRoutes(app: FastifyInstance, { apiClient, clientStallTimeoutMs }: LoadRoutesOptions): void {
  app.post<LoadRequest>(
    '/load/:filename',
    { schema: { body: LOAD_BODY }, config: { failureStatus: 500 } },
    async (request, reply) => {
      // The body's name counts, as in the original; the path's only where the body has none.
      const name = request.body.filename ?? assertFileName(request.params.filename);
      const resource = { folder: request.body.folder, name };
      const abort = abortWhenClientLeaves(reply);
      await using body = await apiClient.load(resource, abort.signal);
      await sendBody(reply, body, { stallTimeoutMs: clientStallTimeoutMs, abort });
    },
  );
}
