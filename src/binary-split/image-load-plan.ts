import { createHash } from 'node:crypto';
import type { ArchiveImage, ArchiveLayer } from '../archive/archive-index.ts';
import type { ImageConfig } from '../archive/manifest.ts';

/** What an engine already holds, as far as the plan depends on it. */
export interface EngineInventory {
  /** Chain IDs of all layers of its images. */
  readonly chainIds: ReadonlySet<string>;
  /** The engine refuses an image that is sent without all of its layers (containerd image store, Podman). */
  readonly needsEveryLayer: boolean;
}

/** One request to the engine: an image, or layers that several images share. */
export interface ImageLoad {
  readonly configJson: Buffer;
  /** Of the image: `sha256:` and the digest of its config. */
  readonly id: string;
  readonly tags: readonly string[];
  /** All of them, from the lowest to the highest. */
  readonly layers: readonly ArchiveLayer[];
  /** The layers whose files are sent. Each diff ID occurs once. */
  readonly sentLayers: readonly ArchiveLayer[];
  /** The load that brings the layers below. It must be complete before this one ends. */
  readonly after: ImageLoad | undefined;
  /** It holds shared layers and is not an image of the archive. It is removed when all images are loaded. */
  readonly isShared: boolean;
}

/** In the order in which the loads are to begin. */
export type ImageLoadPlan = readonly ImageLoad[];

/** Label of the images that hold shared layers while an unlock runs. */
export const SHARED_LAYERS_LABEL = 'com.azaion.loader.shared-layers';

/**
 * Plans the loads of `images`, which the engine lacks. Each layer that the engine lacks is sent once. No other layer is
 * sent.
 *
 * Missing layers that several images share become a load of their own: an image of only these layers, unless one of the
 * images is exactly that. The loads that stand on it may be sent at the same time, but end after it. Loads that others
 * wait for begin first, then the largest ones.
 */
export function planImageLoads(images: readonly ArchiveImage[], engine: EngineInventory): ImageLoadPlan {
  if (engine.needsEveryLayer) return images.map(wholeLoad).toSorted(largestFirst);
  const planned = new Map<string, ImageLoad>();
  const users = countUsers(images);
  const loads: ImageLoad[] = [];
  // Images with few layers come first, so that the base of another image is planned before that image.
  for (const image of images.toSorted((a, b) => a.layers.length - b.layers.length)) {
    let base: ImageLoad | undefined;
    let missing: ArchiveLayer[] = [];
    for (const [index, layer] of image.layers.entries()) {
      if (engine.chainIds.has(layer.chainId)) continue;
      const known = planned.get(layer.chainId);
      if (known !== undefined) {
        base = known;
        missing = [];
        continue;
      }
      missing.push(layer);
      const next = image.layers[index + 1];
      const isSharedTop = (users.get(layer.chainId) ?? 0) > (next === undefined ? 0 : (users.get(next.chainId) ?? 0));
      if (next === undefined || (users.get(layer.chainId) ?? 0) < 2 || !isSharedTop) continue;
      base = sharedLoad(image, image.layers.slice(0, index + 1), missing, base);
      for (const brought of missing) planned.set(brought.chainId, base);
      loads.push(base);
      missing = [];
    }
    const load = { ...wholeLoad(image), sentLayers: distinct(missing), after: base };
    for (const brought of missing) planned.set(brought.chainId, load);
    loads.push(load);
  }
  const awaited = new Set(loads.map((load) => load.after));
  return [
    // They stay in the order of planning, in which each load comes after the one that it waits for.
    ...loads.filter((load) => awaited.has(load)),
    ...loads.filter((load) => !awaited.has(load)).toSorted(largestFirst),
  ];
}

/** The load of an image with all of its layers. */
export function wholeLoad({ config, configJson, tags, layers }: ArchiveImage): ImageLoad {
  return { configJson, id: config.id, tags, layers, sentLayers: distinct(layers), after: undefined, isShared: false };
}

/** The same load with all of its layers, so that it stands on no other load. */
export function withEveryLayer(load: ImageLoad): ImageLoad {
  return { ...load, sentLayers: distinct(load.layers), after: undefined };
}

/** Bytes of layers that a load sends. */
export function sentLength(load: Pick<ImageLoad, 'sentLayers'>): number {
  return load.sentLayers.reduce((total, { file }) => total + file.length, 0);
}

function sharedLoad(
  { config }: ArchiveImage,
  layers: readonly ArchiveLayer[],
  missing: readonly ArchiveLayer[],
  after: ImageLoad | undefined,
): ImageLoad {
  const configJson = sharedConfig(config, layers);
  const id = `sha256:${createHash('sha256').update(configJson).digest('hex')}`;
  return { configJson, id, tags: [], layers, sentLayers: distinct(missing), after, isShared: true };
}

/** The same layers always give the same image, so that a repeated unlock finds it. */
function sharedConfig({ architecture, os, variant }: ImageConfig, layers: readonly ArchiveLayer[]): Buffer {
  return Buffer.from(
    JSON.stringify({
      created: '1970-01-01T00:00:00Z',
      architecture,
      ...(variant === undefined ? {} : { variant }),
      os,
      config: { Labels: { [SHARED_LAYERS_LABEL]: 'true' } },
      rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffId) },
    }),
  );
}

/** The number of images that have each layer, by its chain ID. */
function countUsers(images: readonly ArchiveImage[]): Map<string, number> {
  const users = new Map<string, number>();
  for (const { layers } of images) {
    for (const { chainId } of layers) users.set(chainId, (users.get(chainId) ?? 0) + 1);
  }
  return users;
}

function distinct(layers: readonly ArchiveLayer[]): ArchiveLayer[] {
  return [...new Map(layers.map((layer) => [layer.diffId, layer])).values()];
}

function largestFirst(a: ImageLoad, b: ImageLoad): number {
  return sentLength(b) - sentLength(a);
}
