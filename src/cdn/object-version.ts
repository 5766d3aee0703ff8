import { createHash } from 'node:crypto';
import type { GetObjectCommandOutput } from '@aws-sdk/client-s3';
import { LoaderError } from '../errors.ts';
import { assertObjectLength, assertToken } from './answer-limits.ts';

/** What an object is like, without its bytes. */
export interface ObjectVersion {
  /** A strong one (RFC 9110 section 8.8.3); undefined where the CDN has none, or a weak one. */
  readonly etag: string | undefined;
  /** ms since 1970. */
  readonly modifiedMs: number | undefined;
  /** Of a bucket that keeps versions. */
  readonly versionId: string | undefined;
  /** Bytes. */
  readonly length: number;
  /**
   * SHA-256, hex, of the small part to which a big part belongs; undefined for an object of an older Loader
   * (docs/protocol.md section 6).
   */
  readonly smallSha256: string | undefined;
  /** Whether its uploader writes a manifest (docs/protocol.md section 6). */
  readonly hasManifest: boolean;
}

/** The metadata of a big part that names its small part (docs/protocol.md section 6). */
export const SMALL_SHA256 = 'small-sha256';
/** The metadata of a big part whose uploader writes a manifest; its value is 1. */
export const MANIFEST = 'manifest';

type VersionAnswer = Pick<GetObjectCommandOutput, 'ETag' | 'LastModified' | 'Metadata' | 'VersionId'>;

/** @throws LoaderError `cdn_invalid_response` */
export function versionOf(answer: VersionAnswer, length: number): ObjectVersion {
  const { ETag: etag, LastModified: modified, Metadata: metadata, VersionId: versionId } = answer;
  return {
    etag: isStrong(etag) ? assertToken(etag, 'an ETag') : undefined,
    modifiedMs: modified !== undefined && Number.isFinite(modified.getTime()) ? modified.getTime() : undefined,
    // A bucket that has kept no version of an object yet calls it null.
    versionId: versionId === 'null' ? undefined : versionId,
    length: assertObjectLength(length),
    smallSha256: metadata?.[SMALL_SHA256],
    hasManifest: metadata?.[MANIFEST] === '1',
  };
}

/**
 * Whether two answers are about one version of an object. The digest of the small part says it for certain, since each
 * version has another one. Proxies make ETags weak, and the edges of a CDN may each have their own, so an ETag alone says
 * it only where it is a digest, as S3 makes it.
 *
 * @throws LoaderError `cdn_version_unknown` when nothing tells
 */
export function isSameVersion(one: ObjectVersion, other: ObjectVersion): boolean {
  if (one.length !== other.length) return false;
  if (one.smallSha256 !== undefined && other.smallSha256 !== undefined) return one.smallSha256 === other.smallSha256;
  if (one.versionId !== undefined && other.versionId !== undefined) return one.versionId === other.versionId;
  if (one.etag !== undefined && other.etag !== undefined) {
    if (one.etag === other.etag) return true;
    if (isDigest(one.etag) && isDigest(other.etag)) return false;
  }
  if (one.modifiedMs !== undefined && other.modifiedMs !== undefined) return one.modifiedMs === other.modifiedMs;
  if (one.etag !== undefined && other.etag !== undefined) return false;
  throw new LoaderError(
    'cdn_version_unknown',
    'Nothing in the answers of the CDN tells one version of the big part from another: neither metadata, nor a strong ' +
      'ETag, nor a time. Upload it again with this Loader, or let the proxies before the CDN pass its headers on.',
  );
}

function isStrong(etag: string | undefined): etag is string {
  return etag !== undefined && etag !== '' && !etag.startsWith('W/');
}

/** Whether an ETag is a digest: MD5 of the object, or of the MD5s of its parts with their number. */
export function isDigest(etag: string): boolean {
  return /^"[\da-f]{32}(?:-\d+)?"$/i.test(etag);
}

/** The ETag that S3 gives an object of these parts: the MD5 of their MD5s, and their number. */
export function multipartEtag(parts: readonly { readonly etag: string }[]): string {
  const hash = createHash('md5');
  for (const { etag } of parts) hash.update(Buffer.from(etag.replaceAll('"', ''), 'hex'));
  return `"${hash.digest('hex')}-${parts.length}"`;
}
