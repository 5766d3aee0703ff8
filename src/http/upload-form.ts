import type { Multipart } from '@fastify/multipart';
import type { FastifyRequest } from 'fastify';
import { LoaderError, toError } from '../errors.ts';
import type { UploadItem } from '../resources/upload-service.ts';
import { releaseChunk } from '../transfer/release-chunk.ts';
import { assertFolder, MISSING_MESSAGE, RequestValidationError } from './validation.ts';

/**
 * The items of a multipart upload, as they arrive: one file `data`, and at most one field `folder`, in any order.
 * Other fields are passed over, as the original does.
 *
 * @throws RequestValidationError; LoaderError `client_closed` when the body breaks off
 */
export async function* readUploadForm(request: FastifyRequest): AsyncGenerator<UploadItem, void, undefined> {
  let hasData = false;
  let hasFolder = false;
  const parts = request.parts()[Symbol.asyncIterator]();
  for (let part = await nextPart(parts, request); part !== undefined; part = await nextPart(parts, request)) {
    if (part.type === 'file') {
      if (part.fieldname !== 'data') throw fault('data', 'value_error', `Value error, only one file, data, is taken`);
      if (hasData) throw fault('data', 'value_error', 'Value error, there must be one file only');
      hasData = true;
      yield { kind: 'data', chunks: readFile(part.file, request) };
      if (part.file.truncated) throw fault('data', 'value_error', 'Value error, the file is too large');
    } else if (part.fieldname === 'folder') {
      if (hasFolder) throw fault('folder', 'value_error', 'Value error, there must be one folder only');
      hasFolder = true;
      yield { kind: 'folder', folder: assertFolder(part.value, ['body', 'folder']) };
    }
  }
  if (!hasData) throw fault('data', 'missing', MISSING_MESSAGE);
}

async function nextPart(parts: AsyncIterator<Multipart>, request: FastifyRequest): Promise<Multipart | undefined> {
  try {
    const next = await parts.next();
    return next.done === true ? undefined : next.value;
  } catch (error) {
    throw bodyError(error, request);
  }
}

async function* readFile(
  file: AsyncIterable<Buffer>,
  request: FastifyRequest,
): AsyncGenerator<Buffer, void, undefined> {
  try {
    for await (const chunk of file) {
      yield chunk;
      releaseChunk(chunk); // Whoever asks for the next one is through with it.
    }
  } catch (error) {
    throw bodyError(error, request);
  }
}

/** Whatever the parser says: either the connection broke, or what came over it is no multipart. */
function bodyError(error: unknown, request: FastifyRequest): Error {
  if (error instanceof LoaderError) return error;
  if (!request.raw.complete && request.raw.destroyed) {
    return new LoaderError('client_closed', 'The client closed the connection within the body.', { cause: error });
  }
  const code = 'code' in toError(error) ? String((error as { code: unknown }).code) : '';
  if (code === 'FST_PARTS_LIMIT' || code === 'FST_FILES_LIMIT' || code === 'FST_FIELDS_LIMIT') {
    return fault('data', 'value_error', 'Value error, the form has too many parts');
  }
  return new RequestValidationError([
    { type: 'multipart_invalid', loc: ['body'], msg: 'The multipart body is damaged or ends too early' },
  ]);
}

function fault(field: string, type: string, msg: string): RequestValidationError {
  return new RequestValidationError([{ type, loc: ['body', field], msg }]);
}
