import { LoaderError } from '../errors.ts';

/** Says why an archive can't be unlocked. `reason` begins after a colon, and quotes no content of the archive. */
export function archiveError(reason: string, options?: { cause: unknown }): LoaderError {
  return new LoaderError('archive_invalid', `The image archive is broken: ${reason}.`, options);
}
