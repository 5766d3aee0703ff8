import { createHash } from 'node:crypto';

/** A file of an image, as a manifest names it. */
export interface ImageFile {
  /** `sha256:` and the digest of the file as it is. */
  readonly digest: string;
  readonly length: number;
}

export interface LayerFile extends ImageFile {
  readonly compression: 'none' | 'gzip' | 'zstd';
}

/** How manifests name what they hold. The first is what containerd makes of a tar in the classic layout. */
const FORMS = [
  {
    manifest: 'application/vnd.docker.distribution.manifest.v2+json',
    config: 'application/vnd.docker.container.image.v1+json',
    layer: {
      none: 'application/vnd.docker.image.rootfs.diff.tar',
      gzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
      zstd: 'application/vnd.docker.image.rootfs.diff.tar.zstd',
    },
  },
  {
    manifest: 'application/vnd.oci.image.manifest.v1+json',
    config: 'application/vnd.oci.image.config.v1+json',
    layer: {
      none: 'application/vnd.oci.image.layer.v1.tar',
      gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
      zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
    },
  },
] as const;

/**
 * The IDs by which a containerd image store may know an image: digests of the manifests that containerd makes of what
 * `docker load` gives, and that `docker save` writes in the OCI layout. An image with one of these IDs has this config
 * and these layers. One with another ID may have them too, since a manifest can be written in other ways.
 */
export function manifestIds(config: ImageFile, layers: readonly LayerFile[]): string[] {
  return FORMS.map((form) => {
    const descriptor = (mediaType: string, { digest, length }: ImageFile) => ({ mediaType, digest, size: length });
    const manifest = {
      schemaVersion: 2,
      mediaType: form.manifest,
      config: descriptor(form.config, config),
      layers: layers.map((layer) => descriptor(form.layer[layer.compression], layer)),
    };
    return `sha256:${createHash('sha256').update(JSON.stringify(manifest)).digest('hex')}`;
  });
}
