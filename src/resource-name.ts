import { InputError } from './errors.ts';

/** A resource, as clients name it. The HTTP layer has checked both parts: see RESOURCE_FORMATS. */
export interface ResourceName {
  readonly folder: string;
  readonly name: string;
}

/** The folder of resources for which none is named. */
export const DEFAULT_FOLDER = 'models';

/** Name of the part that lies with the Resource API (docs/protocol.md section 4). */
export function smallPartFile(resource: ResourceName): string {
  return `${resource.name}.small`;
}

/** Name of the part that lies on the CDN and in the cache. */
export function bigPartFile(resource: ResourceName): string {
  return `${resource.name}.big`;
}

/** Name of the manifest beside the big part on the CDN (docs/protocol.md section 7). */
export function manifestFile(resource: ResourceName): string {
  return `${resource.name}.manifest`;
}

/** One text for one resource, to look things up by. */
export function resourceKey(resource: ResourceName): string {
  return `${resource.folder}/${resource.name}`;
}

const MAX_SEGMENT_BYTES = 255;
const MAX_FOLDER_SEGMENTS = 8;
/** Some Resource APIs keep the small part in a file of its name, and file systems allow 255 bytes. */
const MAX_NAME_BYTES = MAX_SEGMENT_BYTES - '.small'.length;
/** S3 takes keys of at most 1,024 bytes of UTF-8. */
const MAX_KEY_BYTES = 1024;

/** What JSON Schemas call the form of a resource's folder and file name, with what a text of this form must be. */
export const RESOURCE_FORMATS = {
  'resource-filename': {
    validate: isResourceFileName,
    meaning: `must be one path segment of 1 to ${MAX_NAME_BYTES} bytes of UTF-8 (with .small they must fit 255), without / \\ " or control characters, and not . or ..`,
  },
  'resource-folder': {
    validate: isResourceFolder,
    meaning:
      'must be 1 to 8 path segments joined by /, each of 1 to 255 bytes of UTF-8, without \\ or control characters, and not . or ..; the first must not be get, which is a path of the Resource API',
  },
} as const;

/** Checks folder and name together. @throws InputError when the object's key on the CDN would be too long */
export function assertStorable(resource: ResourceName): void {
  const length = Buffer.byteLength(`${resource.folder}/${manifestFile(resource)}`, 'utf8');
  if (length <= MAX_KEY_BYTES) return;
  const message = `must be shorter: folder and file name make a key of ${length} bytes, and the CDN takes at most ${MAX_KEY_BYTES}`;
  throw new InputError([{ type: 'value_error', path: ['folder'], message }]);
}

/**
 * The small part goes to the Resource API as a file of a form, where every client writes a quotation mark as %22 (HTML,
 * "multipart/form-data encoding algorithm"): a"b and a%22b would be one file there.
 */
function isResourceFileName(text: string): boolean {
  return isSafeSegment(text) && !text.includes('"') && Buffer.byteLength(text, 'utf8') <= MAX_NAME_BYTES;
}

/** The Resource API stores by `POST /resources/{folder}` and reads by `POST /resources/get/{folder}`; many ignore case. */
function isResourceFolder(text: string): boolean {
  return isSafeFolder(text) && text.split('/')[0]?.toLowerCase() !== 'get';
}

/** Whether `text` can be one segment of a path in the cache, at the Resource API and on the CDN. */
export function isSafeSegment(text: string): boolean {
  if (text === '' || text === '.' || text === '..') return false;
  if (Buffer.byteLength(text, 'utf8') > MAX_SEGMENT_BYTES || !text.isWellFormed()) return false;
  return !/[/\\\p{Cc}]/u.test(text);
}

/** Whether `text` is one to eight safe segments joined by `/`. */
export function isSafeFolder(text: string): boolean {
  const segments = text.split('/');
  return segments.length <= MAX_FOLDER_SEGMENTS && segments.every(isSafeSegment);
}
