import { LoaderError } from '../errors.ts';

/** An archive that can't be unlocked, in one sentence for all that may be wrong with it. It quotes no content. */
export function archiveError(reason: string, options?: { cause: unknown }): LoaderError {
  return new LoaderError('archive_invalid', `The image archive is broken: ${reason}.`, options);
}
