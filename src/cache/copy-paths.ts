import { createHash } from 'node:crypto';
import path from 'node:path';
import { LoaderError } from '../errors.ts';
import { isSafeSegment, type ResourceName } from '../resource-name.ts';

/** Which files of the cache belong to one copy. */
export interface CopyPlace {
  /** Of the resource. */
  readonly folder: string;
  /** What the names of its files begin with. */
  readonly stem: string;
}

/** The files of one copy. */
export interface CopyPaths {
  /** The big part itself. */
  readonly big: string;
  readonly record: string;
  /** A bad copy that was set aside. */
  readonly bad: string;
}

const MAX_NAME_BYTES = 255;
const BIG_SUFFIX = '.big';
const BAD_SUFFIX = '.big.bad';
const DIGEST_STEM = /^sha256-[\da-f]{64}$/;

/** The stem of a resource's files: its name, or a digest of it where file systems do not allow names of that length. */
export function copyStem(name: string): string {
  // The longest suffix decides, so that all files of a resource have the same stem.
  const isPlain = Buffer.byteLength(`${name}.big.dsse`, 'utf8') <= MAX_NAME_BYTES && !isDigestStem(name);
  return isPlain ? name : `sha256-${createHash('sha256').update(name, 'utf8').digest('hex')}`;
}

/** Whether a stem does not tell the name of its resource. */
export function isDigestStem(stem: string): boolean {
  return DIGEST_STEM.test(stem);
}

export function placeOf({ folder, name }: ResourceName): CopyPlace {
  return { folder, stem: copyStem(name) };
}

/** One text for one copy, to look things up by. */
export function placeKey({ folder, stem }: CopyPlace): string {
  return `${folder}/${stem}`;
}

export function copyPaths(folderPath: string, stem: string): CopyPaths {
  const big = path.join(folderPath, stem + BIG_SUFFIX);
  return { big, record: `${big}.dsse`, bad: path.join(folderPath, stem + BAD_SUFFIX) };
}

/** The stem of a copy or of one that was set aside; undefined for every other file, even if it ends like one. */
export function stemOf(file: string, kind: 'copy' | 'set_aside'): string | undefined {
  const suffix = kind === 'copy' ? BIG_SUFFIX : BAD_SUFFIX;
  if (!file.endsWith(suffix)) return undefined;
  const stem = file.slice(0, -suffix.length);
  return isSafeSegment(stem) && (isDigestStem(stem) || copyStem(stem) === stem) ? stem : undefined;
}

/** The place of a copy's file, or of one that was set aside. @throws LoaderError `cache_unusable` for every other file */
export function placeOfFile(folder: string, file: string, kind: 'copy' | 'set_aside'): CopyPlace {
  const stem = stemOf(file, kind);
  if (stem === undefined) throw new LoaderError('cache_unusable', 'No copy of the cache has a file of this name.');
  return { folder, stem };
}
