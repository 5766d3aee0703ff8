import { NEVER } from '../async/abort.ts';
import type { S3CdnManager, SmallObject } from '../cdn/s3-cdn-manager.ts';
import { PassingError } from '../errors.ts';
import { MAX_ENVELOPE_LENGTH } from '../manifest/dsse-envelope.ts';
import type { Manifest } from '../manifest/manifest.ts';
import type { OpenedManifest } from '../manifest/sealed-manifest.ts';
import { manifestFile, type ResourceName } from '../resource-name.ts';
import type { ResourceManifests } from './resource-manifests.ts';

/** What an upload knows of its resource before the manifest gets its revision. */
export type ManifestFacts = Pick<Manifest, 'big' | 'length' | 'sha256' | 'small'>;

export interface ManifestPublicationOptions {
  readonly resource: ResourceName;
  readonly facts: ManifestFacts;
  readonly cdn: Pick<S3CdnManager, 'getSmallObject' | 'putSmallObject'>;
  readonly resourceAesKey: Buffer;
  readonly manifests: ResourceManifests;
  /** @throws LoaderError `upload_superseded` when the object is that of another upload by now */
  readonly assertStands: () => Promise<void>;
}

/** How often a manifest is written that others write at the same time. */
const MAX_TRIES = 8;

/** The manifest of an upload on its way to the CDN (docs/protocol.md section 7). */
export class ManifestPublication {
  readonly #options: ManifestPublicationOptions;
  #sealed: Buffer | undefined;

  constructor(options: ManifestPublicationOptions) {
    this.#options = options;
  }

  /** The manifest that was seen to stand on the CDN, or was stored there. */
  get sealed(): Buffer | undefined {
    return this.#sealed;
  }

  /** Whether the manifest that stands on the CDN is that of this upload. @throws LoaderError of the CDN */
  async stands(): Promise<boolean> {
    return this.#isOurs(await this.#read());
  }

  /**
   * Makes the manifest stand on the CDN, in the place of the one that is there. Its revision is chosen just before, above
   * that one's, and anew when another uploader has written one in between.
   *
   * @throws LoaderError of the CDN; `upload_superseded`
   */
  async write(): Promise<void> {
    const { cdn, resource } = this.#options;
    for (let refused: SmallObject | undefined, tries = 0; tries < MAX_TRIES; tries++) {
      const standing = await this.#read();
      if (this.#isOurs(standing)) return;
      const sealed = await this.#seal(standing);
      const answer = await cdn.putSmallObject(
        resource.folder,
        manifestFile(resource),
        sealed,
        // A store that refuses although nothing has changed does not know how to compare.
        standing === undefined ? 'absent' : { etag: isSame(standing, refused) ? undefined : standing.etag },
        NEVER,
      );
      if (answer === 'stored') {
        await this.#accept(sealed);
        return;
      }
      await this.#options.assertStands();
      refused = standing;
    }
    throw new PassingError(
      'cdn_error',
      'The CDN refused to store a manifest: other uploads write it at the same time.',
    );
  }

  async #seal(standing: SmallObject | undefined): Promise<Buffer> {
    const { facts, manifests, resource, resourceAesKey } = this.#options;
    const now = Date.now();
    const highest = await manifests.revisions.highest(resource);
    const revision = Math.max(now, (this.#open(standing)?.manifest.revision ?? 0) + 1, (highest?.revision ?? 0) + 1);
    return manifests.seal({ ...resource, ...facts, revision, created: new Date(now).toISOString() }, resourceAesKey);
  }

  #isOurs(standing: SmallObject | undefined): boolean {
    const opened = this.#open(standing);
    if (opened?.manifest.small.sha256 !== this.#options.facts.small.sha256) return false;
    this.#sealed = standing?.bytes;
    return true;
  }

  /** The uploader's own device takes no older version from now on. */
  async #accept(sealed: Buffer): Promise<void> {
    this.#sealed = sealed;
    const { manifests, resource } = this.#options;
    const opened = this.#open({ bytes: sealed, etag: undefined });
    if (opened === undefined) throw new Error('a manifest can not be opened by its own uploader');
    const { manifest, payloadSha256 } = opened;
    await manifests.revisions.accept(resource, { revision: manifest.revision, payloadSha256 });
  }

  /** Undefined where there is none, or one that none of the fleet's uploaders made: its revision must not count. */
  #open(standing: SmallObject | undefined): OpenedManifest | undefined {
    const { manifests, resource, resourceAesKey } = this.#options;
    return standing && manifests.openOwn(standing.bytes, resource, resourceAesKey);
  }

  async #read(): Promise<SmallObject | undefined> {
    const { cdn, resource } = this.#options;
    return await cdn.getSmallObject(resource.folder, manifestFile(resource), MAX_ENVELOPE_LENGTH, NEVER);
  }
}

function isSame(one: SmallObject, other: SmallObject | undefined): boolean {
  return other?.bytes.equals(one.bytes) === true;
}
