import type { Patience } from '../async/outage.ts';
import type { CdnObject } from '../cdn/s3-cdn-manager.ts';
import { LoaderError } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import { MAX_ENVELOPE_LENGTH } from '../manifest/dsse-envelope.ts';
import type { Manifest } from '../manifest/manifest.ts';
import { bigPartFile, manifestFile, resourceKey, type ResourceName } from '../resource-name.ts';
import { PREFLIGHT_LENGTH } from '../security/envelope.ts';
import type { Session } from '../upstream/upstream.ts';
import type { SmallPart } from './envelope-parts.ts';
import type { ResourceManifests } from './resource-manifests.ts';

export interface RemoteVersionsOptions {
  readonly manifests: ResourceManifests;
  readonly logger: Logger;
}

export interface RemoteLook {
  readonly session: Pick<Session, 'cdn' | 'resourceAesKey'>;
  readonly patience: Patience;
  readonly signal: AbortSignal;
}

/** A manifest that this device takes for the parts that it has found. */
export interface AcceptedManifest {
  readonly manifest: Manifest;
  /** As it was signed. */
  readonly sealed: Buffer;
}

/** A version of a resource on the CDN that fits its small part. */
export interface RemoteVersion {
  readonly object: CdnObject;
  /** Undefined where the resource is taken without one. */
  readonly accepted: AcceptedManifest | undefined;
}

/** The parts do not fit each other yet: an upload may be under way. The same question may have another answer soon. */
export class UnfinishedVersionError extends LoaderError {
  /** The version to settle for when that goes on; undefined where nothing but a failure is left. */
  readonly object: CdnObject | undefined;

  constructor(
    code: 'manifest_missing' | 'resource_damaged' | 'upload_unfinished',
    message: string,
    object?: CdnObject,
  ) {
    super(code, message);
    this.object = object;
  }
}

/** At most so many versions are remembered that are taken without the manifest beside them. Then all are forgotten. */
const MAX_SETTLED = 10_000;

/** Finds out what the CDN has of a resource, and whether small part, object and manifest are of one version. */
export class RemoteVersions {
  readonly #options: RemoteVersionsOptions;
  /** Versions that are loaded without their manifest, after it was waited for. */
  readonly #settled = new Set<string>();

  constructor(options: RemoteVersionsOptions) {
    this.#options = options;
  }

  /**
   * Finds the version that belongs to a small part (docs/protocol.md sections 6 and 7). A manifest that it returns is
   * accepted: no older one will be taken any more.
   *
   * @throws UnfinishedVersionError; LoaderError `manifest_invalid`, `manifest_outdated`, `manifest_required`,
   * `resource_not_in_cdn`, or any code that begins with `cdn_`
   */
  async find(resource: ResourceName, small: SmallPart, look: RemoteLook): Promise<RemoteVersion> {
    const { session, patience, signal } = look;
    const { folder } = resource;
    const [object, found] = await Promise.all([
      session.cdn.openObject(folder, bigPartFile(resource), PREFLIGHT_LENGTH, signal, patience),
      session.cdn.getSmallObject(folder, manifestFile(resource), MAX_ENVELOPE_LENGTH, signal, patience),
    ]);
    if (object.smallSha256 !== undefined && object.smallSha256 !== small.sha256) throw unfinished(resource);
    if (found === undefined) return this.#withoutManifest(resource, object);
    const { manifests } = this.#options;
    const { manifest, payloadSha256 } = manifests.open(found.bytes, resource, session.resourceAesKey());
    if (manifest.small.sha256 !== small.sha256) return this.#besideOther(resource, object, manifest);
    if (manifest.small.length !== small.length || manifest.big.length !== object.length) {
      throw new UnfinishedVersionError('resource_damaged', doesNotFit(resource));
    }
    if (small.plaintextLength(object) !== manifest.length) throw wrongLength(resource);
    await manifests.revisions.accept(resource, { revision: manifest.revision, payloadSha256 });
    return { object, accepted: { manifest, sealed: found.bytes } };
  }

  /** Settles for a version without its manifest, or fails. */
  settle(resource: ResourceName, failure: UnfinishedVersionError): void {
    const { object } = failure;
    if (object === undefined) throw failure;
    this.#options.logger.warn({ resource }, 'The manifest on the CDN is that of another version: it is not used');
    if (this.#settled.size >= MAX_SETTLED) this.#settled.clear();
    this.#settled.add(keyOf(object));
  }

  #withoutManifest(resource: ResourceName, object: CdnObject): RemoteVersion {
    if (object.hasManifest) {
      throw new UnfinishedVersionError(
        'manifest_missing',
        `The CDN has no manifest of ${resourceKey(resource)}, which its uploader has written or still will: load it again in a moment, and upload it again if that goes on.`,
      );
    }
    return this.#taken(resource, object);
  }

  /** The manifest is that of another small part than the one that was fetched. */
  #besideOther(resource: ResourceName, object: CdnObject, manifest: Manifest): RemoteVersion {
    if (object.smallSha256 === manifest.small.sha256) {
      throw new UnfinishedVersionError('resource_damaged', doesNotFit(resource));
    }
    // An older Loader writes no metadata: it has replaced the rest, and leaves the manifest behind.
    if (object.smallSha256 === undefined) {
      this.#options.logger.warn({ resource }, 'An older Loader has replaced a resource, and its manifest is not used');
      return this.#taken(resource, object);
    }
    if (this.#settled.has(keyOf(object))) return this.#taken(resource, object);
    throw new UnfinishedVersionError('upload_unfinished', unfinished(resource).message, object);
  }

  #taken(resource: ResourceName, object: CdnObject): RemoteVersion {
    if (!this.#options.manifests.isRequired) return { object, accepted: undefined };
    const name = resourceKey(resource);
    throw new LoaderError(
      'manifest_required',
      `${name} has no manifest, and this device takes nothing without one (MANIFEST_REQUIRED, MANIFEST_PUBLIC_KEYS): upload ${name} again with a Loader that writes one.`,
    );
  }
}

function keyOf({ bucket, key, length, etag, smallSha256 }: CdnObject): string {
  return JSON.stringify([bucket, key, length, etag, smallSha256]);
}

function unfinished(resource: ResourceName): UnfinishedVersionError {
  return new UnfinishedVersionError(
    'upload_unfinished',
    `The parts of ${resourceKey(resource)} are of two versions, since an upload is under way or was broken off: load it ` +
      'again in a moment, and upload it again if that goes on.',
  );
}

function doesNotFit(resource: ResourceName): string {
  const name = resourceKey(resource);
  return `A part of ${name} does not match its manifest: it is damaged, or was replaced just now. Load it again in a moment, and upload ${name} again if that goes on.`;
}

function wrongLength(resource: ResourceName): LoaderError {
  const name = resourceKey(resource);
  const message = `The manifest of ${name} tells another length than the end of its envelope: upload ${name} again.`;
  return new LoaderError('manifest_invalid', message);
}
