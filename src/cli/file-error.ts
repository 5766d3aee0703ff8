import { systemErrorCode } from '../errors.ts';
import { CliError } from './cli-error.ts';

/** What is wrong with a file and what to do, by the code of the system. */
const ADVICE: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file or folder: check the path',
  ENOTDIR: 'a part of the path is not a folder: check the path',
  EISDIR: 'it is a folder: name a file',
  EACCES: 'this user may not access it: change its permissions',
  EPERM: 'this user may not access it: change its permissions',
  EROFS: 'the file system is read-only: choose another folder',
  ENOSPC: 'the disk is full: make room, or choose another folder',
  EDQUOT: 'the quota of this user is used up: make room, or choose another folder',
  EFBIG: 'the file system takes no files of that size: choose another folder',
  ENAMETOOLONG: 'the name is too long: choose a shorter one',
};

/** `what` is the beginning of the sentence, such as `The tar images.tar can't be read`. */
export function fileError(what: string, error: unknown): CliError {
  const code = systemErrorCode(error) ?? 'unknown reason';
  return new CliError(`${what} (${code}): ${ADVICE[code] ?? 'check the disk'}.`, { cause: error });
}
