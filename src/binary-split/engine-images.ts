import type { WantedImage } from '../archive/archive-images.ts';
import type { DockerEngine, EngineImage, EngineTraits } from '../docker/docker-engine.ts';
import { chainIds } from '../archive/archive-index.ts';
import { Semaphore } from '../async/semaphore.ts';

/** Questions that wait for the engine's answer at the same time. */
const MAX_INSPECTIONS = 8;

/** All images of the engine, by ID. */
export async function readEngineImages(engine: DockerEngine, signal: AbortSignal): Promise<Map<string, EngineImage>> {
  const slots = new Semaphore(MAX_INSPECTIONS);
  const images = await Promise.all(
    (await engine.listImages(signal)).map(async (id) => {
      using _permit = await slots.acquire(signal);
      return await engine.inspectImage(id, signal);
    }),
  );
  // One that was removed meanwhile is not there.
  return new Map(images.filter((image) => image !== undefined).map((image) => [image.id, image]));
}

/** Chain IDs of all layers that images begin with. */
export function chainIdsOf(images: Iterable<EngineImage>): Set<string> {
  return new Set([...images].flatMap(({ diffIds }) => chainIds(diffIds)));
}

/**
 * Looks whether the engine has an image, under each of its tags; answers the ID under which the engine has it.
 *
 * A containerd image store names images by their manifest, which it makes itself of what `docker load` gives: there, the
 * same layers under the tag, or without one anywhere, must do.
 */
export async function findImage(
  engine: DockerEngine,
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
