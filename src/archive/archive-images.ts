import { createHash } from 'node:crypto';
import { archiveError } from './archive-error.ts';
import type { Compression } from './compression.ts';
import { digestInPath, parseImageConfig, type ArchiveManifest, type ImageConfig } from './manifest.ts';

/** What identifies an image. */
export interface WantedImage {
  /** `sha256:` and the digest of the config. */
  readonly id: string;
  readonly tags: readonly string[];
  /** Digests of the uncompressed layers, from the lowest to the highest. */
  readonly diffIds: readonly string[];
}

/** A layer as manifest.json and the image's config name it. */
export interface NamedLayer {
  readonly path: string;
  /** Digest of the uncompressed layer. */
  readonly diffId: string;
  /** Identifies the layer together with all layers below it, as the engine does. */
  readonly chainId: string;
  /** SHA-256 of the file as it is, in hex; undefined where its path names none. */
  readonly sha256: string | undefined;
}

/** An image as manifest.json and its config name it. */
export interface NamedImage {
  readonly config: ImageConfig;
  readonly configJson: Buffer;
  readonly tags: readonly string[];
  /** From the lowest to the highest. */
  readonly layers: readonly NamedLayer[];
}

/** Which digest a layer's file must have. */
export interface LayerDigest {
  /** `file`: of the file as it is; `content`: of what it decompresses to. */
  readonly of: 'content' | 'file';
  /** SHA-256, hex. */
  readonly hex: string;
}

/** For all images together, so that no archive exhausts the memory. */
const MAX_LAYERS = 20_000;

/**
 * Joins manifest.json with the configs of its images, which come in the same order. An image that is named twice
 * becomes one image with all of its tags.
 *
 * @throws LoaderError `archive_invalid`
 */
export function nameImages(manifest: ArchiveManifest, configs: readonly Buffer[]): NamedImage[] {
  const images = new Map<string, NamedImage>();
  let layerCount = 0;
  for (const [index, { configPath, tags, layerPaths }] of manifest.entries()) {
    const configJson = configs[index] ?? Buffer.alloc(0);
    const config = parseImageConfig(configJson, configPath);
    layerCount += layerPaths.length;
    if (layerCount > MAX_LAYERS) throw tooManyImages();
    if (layerPaths.length !== config.diffIds.length) {
      throw archiveError(`its manifest.json and ${configPath} disagree about the number of layers`);
    }
    const allTags = [...new Set([...(images.get(config.id)?.tags ?? []), ...tags])];
    images.set(config.id, { config, configJson, tags: allTags, layers: nameLayers(config.diffIds, layerPaths) });
  }
  return [...images.values()];
}

export function toWantedImage({ config, tags }: Pick<NamedImage, 'config' | 'tags'>): WantedImage {
  return { id: config.id, tags, diffIds: config.diffIds };
}

/**
 * Returns the digest in the path or, where there is none, the diff ID, which is the digest of the uncompressed layer.
 */
export function layerDigest(
  { diffId, sha256 }: Pick<NamedLayer, 'diffId' | 'sha256'>,
  compression: Compression,
): LayerDigest {
  if (sha256 !== undefined) return { of: 'file', hex: sha256 };
  return { of: compression === 'none' ? 'file' : 'content', hex: diffId.slice('sha256:'.length) };
}

/** Chain IDs of a stack of layers, from the lowest to the highest (OCI image-spec, config.md, Layer ChainID). */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(below === undefined ? diffId : `sha256:${sha256(`${below} ${diffId}`)}`);
  }
  return chain;
}

export function tooManyImages(): Error {
  return archiveError('it has too many images or layers');
}

function nameLayers(diffIds: readonly string[], paths: readonly string[]): NamedLayer[] {
  const chain = chainIds(diffIds);
  return paths.map((path, index) => ({
    path,
    diffId: diffIds[index] ?? '',
    chainId: chain[index] ?? '',
    sha256: digestInPath(path),
  }));
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
