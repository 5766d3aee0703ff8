import { hasErrorCode, LoaderError, systemErrorCode } from '../errors.ts';
import { EndOfFileError } from '../files/file-chunks.ts';

/** A failure of the disk as a LoaderError `cache_unusable`. */
export function toCacheError(error: unknown, done: 'read' | 'written'): LoaderError {
  if (hasErrorCode(error, 'cache_unusable')) return error;
  const code = systemErrorCode(error);
  return new LoaderError('cache_unusable', `The cache could not be ${done}${code ? ` (${code})` : ''}.`, {
    cause: error,
  });
}

/** A file of the cache that ends before its known length as a LoaderError `cache_unusable`; another error as it is. */
export function toCutFileError(error: unknown): unknown {
  if (!(error instanceof EndOfFileError)) return error;
  return new LoaderError('cache_unusable', 'A file of the cache was cut while the Loader read it: try again.', {
    cause: error,
  });
}

/** Whether the file system said that a file, or its folder, does not exist. */
export function isNotThere(error: unknown): boolean {
  if (error instanceof LoaderError) return false;
  const code = systemErrorCode(error);
  return code === 'ENOENT' || code === 'ENOTDIR';
}
