import type { FastifyInstance, FastifyReply } from 'fastify';
import type { DownloadService } from '../../resources/download-service.ts';
import type { ResourceName } from '../../resource-name.ts';
import type { ActiveWork } from '../../api-client/active-work.ts';
import { abortWhenClientLeaves } from '../bodies/client-abort.ts';
import { sendBody } from '../bodies/send-body.ts';
import { assertFileName } from '../errors/request-faults.ts';

export interface LoadRoutesOptions {
  readonly downloads: DownloadService;
  readonly activeWork: ActiveWork;
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
export function registerLoadRoutes(app: FastifyInstance, options: LoadRoutesOptions): void {
  app.post<LoadRequest>(
    '/load/:filename',
    { schema: { body: LOAD_BODY }, config: { failureStatus: 500 } },
    async (request, reply) => {
      // The body's name counts, as in the original; the path's only where the body has none.
      const name = request.body.filename ?? assertFileName(request.params.filename, ['path', 'filename']);
      const resource = { folder: request.body.folder, name };
      const abort = abortWhenClientLeaves(reply);
      await options.activeWork.run(() => send(resource, reply, abort, options));
    },
  );
}

async function send(
  resource: ResourceName,
  reply: FastifyReply,
  abort: AbortController,
  { downloads, clientStallTimeoutMs }: LoadRoutesOptions,
): Promise<void> {
  const body = await downloads.open(resource, abort.signal);
  try {
    await sendBody(reply, body, { stallTimeoutMs: clientStallTimeoutMs, abort });
  } finally {
    await body.close();
  }
}
