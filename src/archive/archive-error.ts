import { LoaderError } from '../errors.ts';

/** Makes the error of an archive that can't be unlocked. `reason` follows a colon, and quotes no file. */
export function archiveError(reason: string, options?: { cause: unknown }): LoaderError {
  return new LoaderError('archive_invalid', `The image archive is broken: ${reason}.`, options);
}
