import { readArchiveIndex, type ArchiveImage } from '../archive/archive-index.ts';
import { chainIds } from '../archive/archive-images.ts';
import { ArchiveStream } from '../archive/archive-stream.ts';
import { openArchive, type ArchiveIdentity, type OpenArchive } from '../archive/open-archive.ts';
import type { DockerEngine, EngineTraits, SoughtImage } from '../docker/docker-engine.ts';
import { hasErrorCode, LoaderError } from '../errors.ts';
import { EngineFeed } from './engine-feed.ts';
import { planImageLoads, SHARED_LAYERS_LABEL } from './image-load-plan.ts';
import { soughtImage } from './sought-image.ts';
import type { ImageLoadProgress } from './unlock-progress.ts';
import { ImageLoads } from './image-loads.ts';

/** What an unlock needs of a DockerEngine. */
export type UnlockEngine = Pick<
  DockerEngine,
  'connect' | 'findImage' | 'inspectImages' | 'listImages' | 'load' | 'removeImage' | 'traits'
>;

export interface UnlockArchiveOptions {
  readonly path: string;
  readonly aesKey: Buffer;
  readonly engine: UnlockEngine;
  readonly parallelism: number;
  readonly stallTimeoutMs: number;
  /** It is planned when the index of the archive is known to be right, and the engine begins to get images. */
  readonly progress: ImageLoadProgress;
  readonly signal: AbortSignal;
}

export interface UnlockedArchive {
  readonly identity: ArchiveIdentity;
  /** IDs under which the engine has the images, and their tags. */
  readonly images: readonly UnlockedImage[];
}

export interface UnlockedImage {
  readonly id: string;
  readonly tags: readonly string[];
}

/**
 * Brings every image of an archive into the engine. It does not send what the engine has already.
 *
 * @throws LoaderError `archive_...` before anything is sent when the archive's ends, headers or JSON are broken, and
 * before an image is complete when one of its layers is; LoaderError `engine_...`
 */
export async function unlockArchive(options: UnlockArchiveOptions): Promise<UnlockedArchive> {
  await using archive = await openArchive(options.path, options.aesKey);
  try {
    const images = await loadImages(archive, options);
    await archive.assertUnchanged();
    return { identity: archive.identity, images };
  } catch (error) {
    throw await archive.explain(error);
  }
}

async function loadImages(archive: OpenArchive, options: UnlockArchiveOptions): Promise<UnlockedImage[]> {
  const { engine, signal } = options;
  // The index comes first, so that the engine gets no call for an archive that can't be read.
  const images = archive.compression === 'none' ? await readArchiveIndex(archive.reader, signal) : undefined;
  await engine.connect(signal);
  const traits = await engine.traits(signal);
  if (images === undefined) return await assertPresent(await loadStream(archive, options), traits, options);

  const missing = await findMissing(images, traits, options);
  if (missing.length > 0) {
    const present = await engine.inspectImages(signal);
    const inventory = new Set(present.flatMap(({ diffIds }) => chainIds(diffIds)));
    const loads = planImageLoads(missing, { chainIds: inventory, needsEveryLayer: traits.needsEveryLayer });
    options.progress.plan(loads, { total: images.length, present: images.length - missing.length });
    await new ImageLoads({ ...options, archive: archive.reader, traits }).run(loads);
  }
  await removeSharedLayers(engine, signal);
  return await assertPresent(images.map(toSoughtImage), traits, options);
}

async function findMissing(
  images: readonly ArchiveImage[],
  traits: EngineTraits,
  { engine, signal }: UnlockArchiveOptions,
): Promise<readonly ArchiveImage[]> {
  // Here an image counts by its ID alone: the same layers and a config that looks the same may be another release.
  const byId = { ...traits, identifiesByManifest: false };
  const missing: ArchiveImage[] = [];
  for (const image of images) {
    if ((await engine.findImage(toSoughtImage(image), byId, signal)) === undefined) missing.push(image);
  }
  return missing;
}

function toSoughtImage(image: ArchiveImage): SoughtImage {
  return soughtImage({ ...image, id: image.config.id });
}

/** Removes the images that the Loader made to hold shared layers, including those of an unlock that was killed. */
async function removeSharedLayers(engine: UnlockEngine, signal: AbortSignal): Promise<void> {
  for (const id of await engine.listImages(signal, SHARED_LAYERS_LABEL)) {
    try {
      await engine.removeImage(id, signal);
    } catch (error) {
      // A container probably uses it. The layers then stay, which does no harm.
      if (!hasErrorCode(error, 'engine_error')) throw error;
    }
  }
}

/** Sends the tar of a compressed archive in one piece, and returns the images that it holds. */
async function loadStream(archive: OpenArchive, options: UnlockArchiveOptions): Promise<readonly SoughtImage[]> {
  const stream = new ArchiveStream(archive);
  options.progress.planStream(stream, archive.reader.plaintextLength);
  using feed = new EngineFeed(options);
  // The progress of the layers is ignored, since that of the reading is shown.
  await Array.fromAsync(feed.send({ length: undefined, chunks: streamBody(stream, feed) }));
  return stream.images;
}

async function* streamBody(stream: ArchiveStream, feed: EngineFeed): AsyncGenerator<Buffer, void, undefined> {
  yield* stream.body(feed.signal);
  feed.commit();
  yield* stream.end;
}

async function assertPresent(
  images: readonly SoughtImage[],
  traits: EngineTraits,
  { engine, signal }: UnlockArchiveOptions,
): Promise<UnlockedImage[]> {
  const loaded: UnlockedImage[] = [];
  for (const image of images) {
    const id = await engine.findImage(image, traits, signal);
    if (id === undefined) {
      throw new LoaderError(
        'engine_image_missing',
        `The Docker engine does not have the image ${image.tags[0] ?? image.id} after everything was loaded; see its log.`,
      );
    }
    loaded.push({ id, tags: image.tags });
  }
  return loaded;
}
