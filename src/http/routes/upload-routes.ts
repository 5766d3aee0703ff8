import type { FastifyInstance } from 'fastify';
import { abortWhenClientLeaves } from '../bodies/client-abort.ts';
import type { ApiClient } from '../../api-client/api-client.ts';
import { readUploadForm } from '../bodies/upload-form.ts';
import { InputError } from '../../errors.ts';
import { MISSING_MESSAGE } from '../../tasks/schema-faults.ts';
import { assertFileName } from '../errors/request-faults.ts';

export interface UploadRoutesOptions {
  readonly apiClient: Pick<ApiClient, 'upload'>;
  readonly clientStallTimeoutMs: number;
}

/** POST /upload/{filename}, multipart: 200 `{"status":"ok"}`, 500 for every failure. */
export function registerUploadRoutes(
  app: FastifyInstance,
  { apiClient, clientStallTimeoutMs }: UploadRoutesOptions,
): void {
  app.post<{ Params: { filename: string } }>(
    '/upload/:filename',
    {
      config: { failureStatus: 500, watchesBody: true },
      // Before any other parser reads a body that is none of ours.
      onRequest: async (request) => {
        if (/^multipart\/form-data\s*;/i.test(request.headers['content-type'] ?? '')) return Promise.resolve();
        throw new InputError([{ type: 'missing', path: ['data'], message: MISSING_MESSAGE }]);
      },
    },
    async (request, reply) => {
      const name = assertFileName(request.params.filename);
      const { signal } = abortWhenClientLeaves(reply);
      const items = readUploadForm(request, { stallTimeoutMs: clientStallTimeoutMs, signal });
      await apiClient.upload(name, items, signal);
      return { status: 'ok' };
    },
  );
}
