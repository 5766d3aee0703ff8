import { createHash } from 'node:crypto';
import { KeyedLock } from '../async/keyed-lock.ts';
import type { BigPartCache } from '../cache/big-part-cache.ts';
import type { OpenCopy } from '../cache/copy-files.ts';
import { isDigest } from '../cdn/object-version.ts';
import type { ObjectVersion, S3CdnManager } from '../cdn/s3-cdn-manager.ts';
import { FILE_CHUNK_LENGTH, readFileChunks } from '../files/file-chunks.ts';
import type { Logger } from '../log/logger.ts';
import { bigPartFile, resourceKey, type ResourceName } from '../resource-name.ts';

export interface CopyProofsOptions {
  readonly cache: Pick<BigPartCache, 'markPair'>;
  readonly logger: Logger;
}

/** A copy, the small part that it is to be joined with, and where to ask. */
export interface CopyToProve {
  readonly resource: ResourceName;
  readonly copy: OpenCopy;
  /** Hex. */
  readonly smallSha256: string;
  readonly cdn: Pick<S3CdnManager, 'lookAt'>;
}

/** How long a load waits for the CDN because of a copy that it has, in ms. */
const LOOK_TIMEOUT_MS = 2_000;
/** After this time, an older Loader that stored its small part has certainly completed its object, in ms. */
const SETTLED_AFTER_MS = 10 * 60_000;
/** After this time, the CDN is asked again about a copy that it did not prove, in ms. */
const ASK_AGAIN_MS = 10 * 60_000;
/** At most so many copies are remembered. Then all are forgotten, and the CDN is asked about them again. */
const MAX_ASKED = 10_000;
/** The lengths of parts that S3 uploaders use, in bytes; ours is the first. */
const PART_LENGTHS = [8, 5, 16, 32, 64, 10, 15, 25, 50, 100, 128].map((mib) => mib * 1024 * 1024);

/**
 * Proves that copies in the cache belong to their small part, where no record says so: a Loader of an earlier version
 * could join the small part of one version with the big part of another, and keep that. Each copy is compared with the
 * CDN's object once; while the CDN can't be asked, the copy is used as it is (docs/protocol.md section 6).
 */
export class CopyProofs {
  readonly #options: CopyProofsOptions;
  readonly #locks = new KeyedLock();
  /** When the CDN was asked about a copy that it did not prove, in ms since 1970. */
  readonly #asked = new Map<string, number>();

  constructor(options: CopyProofsOptions) {
    this.#options = options;
  }

  /** Whether the copy may be used. @throws the reason of `signal` */
  async mayBeUsed(subject: CopyToProve, signal: AbortSignal): Promise<boolean> {
    const { cache, logger } = this.#options;
    const { copy, resource, smallSha256 } = subject;
    if (copy.record?.isPair === true) return true;
    const key = `${resourceKey(resource)} ${copy.inode}`;
    using _lock = await this.#locks.acquire(key);
    const ageMs = Date.now() - (this.#asked.get(key) ?? 0);
    if (ageMs >= 0 && ageMs < ASK_AGAIN_MS) return true;
    const version = await this.#lookAt(subject, signal);
    const verdict = version === undefined ? 'unknown' : await compare(subject, version, signal);
    if (verdict === 'differs') {
      logger.warn({ resource }, 'A copy in the cache is not of the version that the CDN has, and is not used');
      return false;
    }
    if (verdict === 'pair') await cache.markPair(resource, copy, { smallSha256, etag: version?.etag });
    if (this.#asked.size >= MAX_ASKED) this.#asked.clear();
    this.#asked.set(key, Date.now());
    return true;
  }

  /** Undefined when there is no such object, or the CDN can't be asked now. @throws the reason of `signal` */
  async #lookAt({ cdn, resource }: CopyToProve, signal: AbortSignal): Promise<ObjectVersion | undefined> {
    try {
      const bounded = AbortSignal.any([signal, AbortSignal.timeout(LOOK_TIMEOUT_MS)]);
      return await cdn.lookAt(resource.folder, bigPartFile(resource), bounded);
    } catch (error) {
      signal.throwIfAborted();
      this.#options.logger.info({ err: error, resource }, 'A copy in the cache could not be compared with the CDN');
      return undefined;
    }
  }
}

/** Whether a copy belongs to its small part, as far as the object on the CDN tells. @throws as `isContentOf` does */
async function compare(
  { copy, smallSha256 }: CopyToProve,
  version: ObjectVersion,
  signal: AbortSignal,
): Promise<'pair' | 'differs' | 'unknown'> {
  if (version.smallSha256 !== undefined && version.smallSha256 !== smallSha256) return 'differs';
  const { etag, madeAtMs } = copy.record ?? {};
  if (version.etag === undefined) return 'unknown';
  // Another ETag says nothing where it is no digest: each edge of a CDN may have its own.
  if (etag !== undefined && etag !== version.etag && !isDigest(version.etag)) return 'unknown';
  const isSame =
    etag === undefined ? await isContentOf(copy, version.etag, version.length, signal) : etag === version.etag;
  if (!isSame) return 'differs';
  const isSettled = madeAtMs === undefined || Math.abs(Date.now() - madeAtMs) > SETTLED_AFTER_MS;
  return version.smallSha256 !== undefined || isSettled ? 'pair' : 'unknown';
}

/** Whether the bytes of a copy give the ETag of an object. @throws the reason of `signal`; the system's error */
async function isContentOf(copy: OpenCopy, etag: string, length: number, signal: AbortSignal): Promise<boolean> {
  if (copy.length !== length) return false;
  const [, md5, count] = /^"([\da-f]{32})(?:-(\d+))?"$/.exec(etag) ?? [];
  if (md5 === undefined) return false;
  if (count === undefined) return (await md5sOf(copy, copy.length, signal))[0]?.toString('hex') === md5;
  for (const partLength of PART_LENGTHS) {
    if (Math.ceil(copy.length / partLength) !== Number(count)) continue;
    const md5s = await md5sOf(copy, partLength, signal);
    if (createHash('md5').update(Buffer.concat(md5s)).digest('hex') === md5) return true;
  }
  return false;
}

async function md5sOf(copy: OpenCopy, partLength: number, signal: AbortSignal): Promise<Buffer[]> {
  const md5s: Buffer[] = [];
  for (let start = 0; start < copy.length; start += partLength) {
    const hash = createHash('md5');
    const end = Math.min(copy.length, start + partLength);
    for await (const chunk of readFileChunks(copy.handle, start, end, FILE_CHUNK_LENGTH)) {
      signal.throwIfAborted();
      hash.update(chunk);
    }
    md5s.push(hash.digest());
  }
  return md5s;
}
