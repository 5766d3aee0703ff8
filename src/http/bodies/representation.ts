import type { OpenResource } from '../../resources/download-service.ts';
import { parseByteRange, type ByteRange } from './byte-range.ts';

type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** What the headers of responses tell of a resource (RFC 9110 section 8.8, RFC 9530). */
export function headersOf({ identity, manifest }: Pick<OpenResource, 'identity' | 'manifest'>): Record<string, string> {
  const modified = lastModified(manifest?.created);
  return {
    etag: `"${identity}"`,
    ...(manifest !== undefined && {
      'repr-digest': `sha-256=:${Buffer.from(manifest.sha256, 'hex').toString('base64')}:`,
    }),
    ...(modified !== undefined && { 'last-modified': modified }),
  };
}

/** Undefined for a time that is none, or is still to come: the clock of the uploader was wrong (section 8.8.2.1). */
function lastModified(created: string | undefined): string | undefined {
  const ms = Date.parse(created ?? '');
  return Number.isFinite(ms) && ms <= Date.now() ? new Date(ms).toUTCString() : undefined;
}

/** Whether the client has this version already: 304 (RFC 9110 sections 13.1.2 and 13.1.3). */
export function isNotModified(request: Headers, headers: Readonly<Record<string, string>>): boolean {
  const tags = textOf(request['if-none-match']);
  if (tags !== undefined) {
    if (tags.trim() === '*') return true;
    // A weak comparison: a proxy that compresses may have made ours weak.
    return tags.split(',').some((tag) => tag.trim().replace(/^W\//, '') === headers['etag']);
  }
  const since = Date.parse(textOf(request['if-modified-since']) ?? '');
  const modified = Date.parse(headers['last-modified'] ?? '');
  return Number.isFinite(since) && Number.isFinite(modified) && modified <= since;
}

/** The range that is asked for, unless it is one of another version (RFC 9110 section 13.1.5). */
export function wantedRange(
  request: Headers,
  headers: Readonly<Record<string, string>>,
  length: number,
): ByteRange | 'whole' | 'unsatisfiable' {
  const condition = textOf(request['if-range']);
  const isOther = condition !== undefined && condition !== headers['etag'] && condition !== headers['last-modified'];
  return isOther ? 'whole' : parseByteRange(textOf(request['range']), length);
}

function textOf(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value.join(', ') : value;
}
