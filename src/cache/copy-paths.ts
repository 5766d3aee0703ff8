import { createHash } from 'node:crypto';
import path from 'node:path';
import { isSafeSegment } from '../resource-name.ts';

/** The files of one copy. */
export interface CopyPaths {
  /** The big part itself. */
  readonly big: string;
  readonly record: string;
  readonly sums: string;
  /** A bad one that was set aside. */
  readonly bad: string;
}

const MAX_NAME_BYTES = 255;
const BIG_SUFFIX = '.big';
const BAD_SUFFIX = '.big.bad';
const DIGEST_STEM = /^sha256-[\da-f]{64}$/;

/** What the files of a resource begin with: its name, or a digest where that would be longer than file systems allow. */
export function copyStem(name: string): string {
  // The longest suffix decides, so that a resource's files share one form of its name.
  const isPlain = Buffer.byteLength(`${name}.big.json`, 'utf8') <= MAX_NAME_BYTES && !isDigestStem(name);
  return isPlain ? name : `sha256-${createHash('sha256').update(name, 'utf8').digest('hex')}`;
}

/** Whether a stem does not tell the name of its resource. */
export function isDigestStem(stem: string): boolean {
  return DIGEST_STEM.test(stem);
}

export function copyPaths(folderPath: string, stem: string): CopyPaths {
  const big = path.join(folderPath, stem + BIG_SUFFIX);
  return { big, record: `${big}.json`, sums: `${big}.sums`, bad: path.join(folderPath, stem + BAD_SUFFIX) };
}

/** The stem of a copy or of one that was set aside; undefined for every other file, even if it ends like one. */
export function stemOf(file: string, kind: 'copy' | 'set_aside'): string | undefined {
  const suffix = kind === 'copy' ? BIG_SUFFIX : BAD_SUFFIX;
  if (!file.endsWith(suffix)) return undefined;
  const stem = file.slice(0, -suffix.length);
  return isSafeSegment(stem) && (isDigestStem(stem) || copyStem(stem) === stem) ? stem : undefined;
}
