import { LoaderError } from '../errors.ts';
import type { Manifest } from '../manifest/manifest.ts';
import { ManifestError } from '../manifest/manifest-error.ts';
import { ResourceKeyMac, type ManifestVerifier, type SigningKey, type PublicKey } from '../manifest/manifest-keys.ts';
import { openManifest, sealManifest, type OpenedManifest } from '../manifest/sealed-manifest.ts';
import { resourceKey, type ResourceName } from '../resource-name.ts';
import type { RevisionMemory } from './revision-memory.ts';

export interface ResourceManifestsOptions {
  /** Of this uploader, if it has one. */
  readonly signingKey: SigningKey | undefined;
  /** If there are any, nothing but what one of them signed is taken. */
  readonly publicKeys: readonly PublicKey[];
  /** Whether resources without a manifest are refused. */
  readonly isRequired: boolean;
  readonly revisions: RevisionMemory;
}

/** What this device makes of manifests: which keys sign them, which are trusted, and which revisions were accepted. */
export class ResourceManifests {
  readonly #options: ResourceManifestsOptions;

  constructor(options: ResourceManifestsOptions) {
    this.#options = options;
  }

  /** Whether resources without a manifest are refused. */
  get isRequired(): boolean {
    return this.#options.isRequired || this.#options.publicKeys.length > 0;
  }

  get revisions(): RevisionMemory {
    return this.#options.revisions;
  }

  /** The bytes of a manifest, authenticated under the resource key and signed by the uploader's key where it has one. */
  seal(manifest: Manifest, resourceAesKey: Buffer): Buffer {
    const { signingKey } = this.#options;
    return sealManifest(manifest, [
      new ResourceKeyMac(resourceAesKey),
      ...(signingKey === undefined ? [] : [signingKey]),
    ]);
  }

  /**
   * Opens the manifest of a resource (docs/protocol.md section 7, rules 1 and 2).
   *
   * @throws LoaderError `manifest_invalid`
   */
  open(bytes: Buffer, resource: ResourceName, resourceAesKey: Buffer): OpenedManifest {
    try {
      return openManifest(bytes, this.#verifiers(resourceAesKey), resource);
    } catch (error) {
      if (!(error instanceof ManifestError)) throw error;
      throw new LoaderError(
        'manifest_invalid',
        `The manifest of ${resourceKey(resource)} ${error.message}. ${this.#remedy}`,
        { cause: error },
      );
    }
  }

  /**
   * The same for the manifest of an upload of this fleet, which need not be signed by a key that this device trusts;
   * undefined where it is none.
   */
  openOwn(bytes: Buffer, resource: ResourceName, resourceAesKey: Buffer): OpenedManifest | undefined {
    try {
      return openManifest(bytes, [new ResourceKeyMac(resourceAesKey)], resource);
    } catch (error) {
      if (error instanceof ManifestError) return undefined;
      throw error;
    }
  }

  #verifiers(resourceAesKey: Buffer): readonly ManifestVerifier[] {
    const { publicKeys } = this.#options;
    return publicKeys.length > 0 ? publicKeys : [new ResourceKeyMac(resourceAesKey)];
  }

  get #remedy(): string {
    return this.#options.publicKeys.length > 0
      ? 'Check MANIFEST_PUBLIC_KEYS, or upload the resource again with a MANIFEST_SIGNING_KEY that belongs to one of them.'
      : 'Check RESOURCE_KEY, or upload the resource again.';
  }
}
