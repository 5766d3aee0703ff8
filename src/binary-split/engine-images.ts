import { chainIds, type WantedImage } from '../archive/archive-images.ts';
import { Semaphore } from '../async/semaphore.ts';
import type { DockerEngine, EngineImage, EngineTraits } from '../docker/docker-engine.ts';

type Inspections = Pick<DockerEngine, 'inspectImage' | 'listImages'>;

/** Inspections that wait for the engine's answer at the same time. */
const MAX_INSPECTIONS = 8;

/** All images of the engine, by ID. */
export async function readEngineImages(engine: Inspections, signal: AbortSignal): Promise<Map<string, EngineImage>> {
  const slots = new Semaphore(MAX_INSPECTIONS);
  const images = await Promise.all(
    (await engine.listImages(signal)).map(async (id) => {
      using _permit = await slots.acquire(signal);
      return await engine.inspectImage(id, signal);
    }),
  );
  // An image that was removed meanwhile is undefined.
  return new Map(images.filter((image) => image !== undefined).map((image) => [image.id, image]));
}

/** Chain IDs of all layers of these images. */
export function chainIdsOf(images: Iterable<EngineImage>): Set<string> {
  return new Set([...images].flatMap(({ diffIds }) => chainIds(diffIds)));
}

/**
 * Returns the ID under which the engine has an image, if it has it under each of its tags.
 *
 * A containerd image store identifies images by a manifest that it makes itself of what `docker load` gives. There, an
 * image counts that has the same layers under the tag or, where there is no tag, anywhere.
 */
export async function findImage(
  engine: Inspections,
  wanted: WantedImage,
  traits: EngineTraits,
  signal: AbortSignal,
): Promise<string | undefined> {
  const isIt = (image: EngineImage) =>
    image.id === wanted.id || (traits.identifiesByManifest && hasLayers(image, wanted.diffIds));
  if (wanted.tags.length === 0 && traits.identifiesByManifest) {
    return (await readEngineImages(engine, signal)).values().find(isIt)?.id;
  }
  let id: string | undefined;
  for (const name of wanted.tags.length === 0 ? [wanted.id] : wanted.tags) {
    const image = await engine.inspectImage(name, signal);
    if (image === undefined || !isIt(image)) return undefined;
    id = image.id;
  }
  return id;
}

function hasLayers({ diffIds }: EngineImage, wanted: readonly string[]): boolean {
  return diffIds.length === wanted.length && diffIds.every((diffId, index) => diffId === wanted[index]);
}
