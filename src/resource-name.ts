/** A resource, as clients name it. The HTTP layer has checked both parts: see isSafeSegment and isSafeFolder. */
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

/** One text for one resource, to look things up by. */
export function resourceKey(resource: ResourceName): string {
  return `${resource.folder}/${resource.name}`;
}

/** What JSON Schemas call the form of a resource's folder and file name, with what a text of this form must be. */
export const RESOURCE_FORMATS = {
  'resource-filename': {
    validate: isSafeSegment,
    meaning: 'must be one path segment of 1 to 255 bytes of UTF-8, without / \\ or control characters, and not . or ..',
  },
  'resource-folder': {
    validate: isSafeFolder,
    meaning:
      'must be 1 to 8 path segments joined by /, each of 1 to 255 bytes of UTF-8, without \\ or control characters, and not . or ..',
  },
} as const;

const MAX_SEGMENT_BYTES = 255;
const MAX_FOLDER_SEGMENTS = 8;

/** Whether `text` can be one segment of a resource's path: see docs/http-api.md. */
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
