import type { Readable } from 'node:stream';
import type { Multipart } from '@fastify/multipart';
import type { FastifyRequest } from 'fastify';
import { InputError, LoaderError, toError } from '../../errors.ts';
import type { UploadItem } from '../../resources/upload-service.ts';
import { releaseChunk } from '../../files/release-chunk.ts';
import { StallTimer } from '../../async/stall-timer.ts';
import { watchForStalls } from '../../async/stall-watchdog.ts';
import { MISSING_MESSAGE } from '../../tasks/schema-faults.ts';
import { assertFolder } from '../errors/request-faults.ts';

export interface UploadFormOptions {
  /** How long the client may send nothing, in ms. The time in which the Loader does not read does not count. */
  readonly stallTimeoutMs: number;
  /** Aborts when the client leaves. */
  readonly signal: AbortSignal;
}

/** Far above the length of a boundary: the parser goes on using the buffers of boundaries that it hands out. */
const MIN_RELEASED_LENGTH = 16 * 1024;

/**
 * The items of a multipart upload, as they arrive: one file `data`, and at most one field `folder`, in any order.
 * It ignores other fields, as the original does. Folder and bytes go into the request's line of the log.
 *
 * @throws InputError; LoaderError `client_closed` when the body breaks off, `client_stalled`
 */
export async function* readUploadForm(
  request: FastifyRequest,
  options: UploadFormOptions,
): AsyncGenerator<UploadItem, void, undefined> {
  const { facts } = request;
  let hasData = false;
  let hasFolder = false;
  const parts = request.parts()[Symbol.asyncIterator]();
  for (
    let part = await nextPart(parts, request, options);
    part !== undefined;
    part = await nextPart(parts, request, options)
  ) {
    if (part.type === 'file') {
      if (part.fieldname !== 'data')
        throw fault('data', 'value_error', 'there must be one file only, and its name must be data');
      if (hasData) throw fault('data', 'value_error', 'there must be one file only, data');
      hasData = true;
      yield { kind: 'data', chunks: readFile(part.file, request, options) };
      if (part.file.truncated) throw fault('data', 'value_error', 'data must be a smaller file');
    } else if (part.valueTruncated) {
      throw new LoaderError('body_too_large', 'A field of the form is larger than 16 KiB.');
    } else if (part.fieldname === 'folder') {
      if (hasFolder) throw fault('folder', 'value_error', 'there must be one folder only');
      hasFolder = true;
      const folder = assertFolder(part.value);
      if (facts.resource !== undefined) facts.resource = { ...facts.resource, folder };
      yield { kind: 'folder', folder };
    }
  }
  if (!hasData) throw fault('data', 'missing', MISSING_MESSAGE);
}

async function nextPart(
  parts: AsyncIterator<Multipart>,
  request: FastifyRequest,
  options: UploadFormOptions,
): Promise<Multipart | undefined> {
  const { promise: stalled, reject } = Promise.withResolvers<never>();
  using _timer = new StallTimer(options.stallTimeoutMs, () => reject(clientStalled(options)));
  try {
    const next = await Promise.race([parts.next(), stalled]);
    return next.done === true ? undefined : next.value;
  } catch (error) {
    throw bodyError(error, request);
  }
}

async function* readFile(
  file: Readable,
  request: FastifyRequest,
  options: UploadFormOptions,
): AsyncGenerator<Buffer, void, undefined> {
  const watchdog = { timeoutMs: options.stallTimeoutMs, stalled: () => clientStalled(options), signal: options.signal };
  try {
    for await (const chunk of watchForStalls(file, watchdog)) {
      request.facts.bytes = (request.facts.bytes ?? 0) + chunk.length;
      yield chunk;
      // A consumer that asks for the next chunk no longer needs this one. The parser keeps small ones of its own.
      if (chunk.length >= MIN_RELEASED_LENGTH) releaseChunk(chunk);
    }
  } catch (error) {
    throw bodyError(error, request);
  }
}

function clientStalled({ stallTimeoutMs }: UploadFormOptions): LoaderError {
  return new LoaderError('client_stalled', `The client sent nothing for ${stallTimeoutMs} ms.`);
}

/** Either the connection broke, or the body is no multipart form. The parser's own words are not shown. */
function bodyError(error: unknown, request: FastifyRequest): Error {
  if (error instanceof LoaderError) return error;
  if (!request.raw.complete && request.raw.destroyed) {
    return new LoaderError('client_closed', 'The client closed the connection within the body.', { cause: error });
  }
  const code = 'code' in toError(error) ? String((error as { code: unknown }).code) : '';
  if (code === 'FST_PARTS_LIMIT' || code === 'FST_FILES_LIMIT' || code === 'FST_FIELDS_LIMIT') {
    return fault('data', 'value_error', 'the form must have fewer parts');
  }
  if (code === 'FST_PROTO_VIOLATION') {
    return fault('data', 'value_error', 'no field may have a name that all objects have, such as constructor');
  }
  const message = 'The multipart body is damaged or ends too early';
  return new InputError([{ type: 'multipart_invalid', path: [], message }]);
}

function fault(field: string, type: string, message: string): InputError {
  return new InputError([{ type, path: [field], message }]);
}
