import type { ApiClient } from '../../api-client/api-client.ts';
import { InputError } from '../../errors.ts';
import { MISSING_MESSAGE } from '../../tasks/schema-faults.ts';
import { abortWhenClientLeaves } from '../bodies/client-abort.ts';
import { readUploadForm } from '../bodies/upload-form.ts';
import { assertFileName } from '../errors/request-faults.ts';
import { DEFAULT_FOLDER } from '../../resource-name.ts';
import { failures, INVALID_INPUT, OK, type HttpApp } from '../schemas/responses.ts';
import { RESOURCE_PARAMS, UPLOAD_FORM } from '../schemas/resource.ts';

export interface UploadRoutesOptions {
  readonly apiClient: Pick<ApiClient, 'upload'>;
  readonly clientStallTimeoutMs: number;
}

/** POST /upload/{filename}, multipart: 200 `{"status":"ok"}`, 500 for every failure. */
export function registerUploadRoutes(app: HttpApp, { apiClient, clientStallTimeoutMs }: UploadRoutesOptions): void {
  app.post(
    '/upload/:filename',
    {
      schema: {
        operationId: 'uploadResource',
        summary: 'Encrypt and store a resource',
        tags: ['resources'],
        consumes: ['multipart/form-data'],
        params: RESOURCE_PARAMS,
        body: UPLOAD_FORM,
        response: { ...failures(413), ...INVALID_INPUT, 200: OK },
      },
      // The form is checked while it streams.
      validatorCompiler: () => () => true,
      config: { failureStatus: 500, watchesBody: true },
      // Runs before any other parser can read a body that is no form.
      onRequest: async (request) => {
        if (/^multipart\/form-data\s*;/i.test(request.headers['content-type'] ?? '')) return Promise.resolve();
        throw new InputError([{ type: 'missing', path: ['data'], message: MISSING_MESSAGE }]);
      },
    },
    async (request, reply) => {
      const name = assertFileName(request.params.filename);
      request.facts.resource = { folder: DEFAULT_FOLDER, name };
      const { signal } = abortWhenClientLeaves(reply);
      const items = readUploadForm(request, { stallTimeoutMs: clientStallTimeoutMs, signal });
      await apiClient.upload(name, items, signal);
      return { status: 'ok' as const };
    },
  );
}
