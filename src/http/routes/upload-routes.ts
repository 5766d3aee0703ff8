import type { FastifyInstance } from 'fastify';
import type { UploadService } from '../../resources/upload-service.ts';
import type { ActiveWork } from '../../api-client/active-work.ts';
import { abortWhenClientLeaves } from '../bodies/client-abort.ts';
import { readUploadForm } from '../bodies/upload-form.ts';
import { assertFileName, MISSING_MESSAGE, RequestValidationError } from '../errors/request-faults.ts';

export interface UploadRoutesOptions {
  readonly uploads: UploadService;
  readonly activeWork: ActiveWork;
  readonly clientStallTimeoutMs: number;
}

/** POST /upload/{filename}, multipart: 200 `{"status":"ok"}`, 500 for every failure. */
export function registerUploadRoutes(
  app: FastifyInstance,
  { uploads, activeWork, clientStallTimeoutMs }: UploadRoutesOptions,
): void {
  app.post<{ Params: { filename: string } }>(
    '/upload/:filename',
    {
      config: { failureStatus: 500, watchesBody: true },
      // Before any other parser reads a body that is none of ours.
      onRequest: async (request) => {
        if (/^multipart\/form-data\s*;/i.test(request.headers['content-type'] ?? '')) return Promise.resolve();
        throw new RequestValidationError([{ type: 'missing', loc: ['body', 'data'], msg: MISSING_MESSAGE }]);
      },
    },
    async (request, reply) => {
      const name = assertFileName(request.params.filename, ['path', 'filename']);
      const { signal } = abortWhenClientLeaves(reply);
      await activeWork.run(() =>
        uploads.upload(name, readUploadForm(request, { stallTimeoutMs: clientStallTimeoutMs, signal }), signal),
      );
      return { status: 'ok' };
    },
  );
}
