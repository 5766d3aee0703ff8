import type { SeenRequest } from './fault-proxy.ts';

/** What a request asks of an S3 server. */
export type S3RequestKind = 'read' | 'look' | 'begin' | 'part' | 'complete' | 'abort' | 'other';

export function s3RequestKind({ method, url }: SeenRequest): S3RequestKind {
  const { searchParams } = new URL(url, 'http://s3');
  const isOfUpload = searchParams.has('uploadId');
  if (method === 'PUT' && isOfUpload) return 'part';
  if (method === 'POST' && isOfUpload) return 'complete';
  if (method === 'DELETE' && isOfUpload) return 'abort';
  if (method === 'POST' && searchParams.has('uploads')) return 'begin';
  if (method === 'HEAD') return 'look';
  return method === 'GET' && !isOfUpload && !searchParams.has('uploads') ? 'read' : 'other';
}

/** The ID of the upload to which a request belongs. */
export function uploadIdOf({ url }: SeenRequest): string | undefined {
  return new URL(url, 'http://s3').searchParams.get('uploadId') ?? undefined;
}
