import type { DockerEngine, EngineTraits } from '../docker/docker-engine.ts';
import { hasErrorCode, LoaderError } from '../errors.ts';
import { EndOfFileError } from '../files/file-chunks.ts';
import { archiveError } from '../archive/archive-error.ts';
import { readArchiveIndex, type ArchiveImage } from '../archive/archive-index.ts';
import { ArchiveStream } from '../archive/archive-stream.ts';
import { feedEngine } from './engine-feed.ts';
import { chainIdsOf, findImage, readEngineImages } from './engine-images.ts';
import { planImageLoads, SHARED_LAYERS_LABEL } from './image-load-plan.ts';
import { ImageLoadProgress, type UnlockSnapshot } from './image-load-progress.ts';
import { ImageLoads } from './image-loads.ts';
import { assertUnchanged, openArchive, type ArchiveIdentity, type OpenArchive } from '../archive/open-archive.ts';
import type { WantedImage } from '../archive/archive-images.ts';

export interface UnlockArchiveOptions {
  readonly path: string;
  readonly aesKey: Buffer;
  readonly engine: DockerEngine;
  readonly parallelism: number;
  readonly stallTimeoutMs: number;
  /** The archive is sound as far as can be told, and the engine begins to get images. */
  readonly onLoading: () => void;
  /** Told once when loading begins; the function gives the present state whenever it is called. */
  readonly onProgress: (read: () => UnlockSnapshot) => void;
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
 * Brings every image of an archive into the engine. What is there already is not sent.
 *
 * @throws LoaderError `archive_...` before the engine hears anything of an archive that is broken at its ends, in its
 * headers or in its JSON; of a layer, before its image is complete; and `engine_...`
 */
export async function unlockArchive(options: UnlockArchiveOptions): Promise<UnlockedArchive> {
  const { path, aesKey } = options;
  const archive = await openArchive(path, aesKey);
  try {
    const images = await loadImages(archive, options);
    await assertUnchanged(path, archive.identity);
    return { identity: archive.identity, images };
  } catch (error) {
    // What looks broken may have been overwritten under our hands.
    const isCut = error instanceof EndOfFileError;
    if (isCut || hasErrorCode(error, 'archive_invalid')) await assertUnchanged(path, archive.identity);
    if (isCut) throw archiveError('its file was cut while it was read', { cause: error });
    throw error;
  } finally {
    await archive.close();
  }
}

async function loadImages(archive: OpenArchive, options: UnlockArchiveOptions): Promise<UnlockedImage[]> {
  const { engine, signal } = options;
  // The index first: the engine hears nothing of an archive that can't be read.
  const images = archive.compression === 'none' ? await readArchiveIndex(archive.reader, signal) : undefined;
  await engine.connect(signal);
  const traits = await engine.traits(signal);
  if (images === undefined) return await loadWhole(archive, traits, options);

  const missing: ArchiveImage[] = [];
  for (const image of images) {
    // By manifest, one can't tell whether an image that is there is of this release.
    const isThere =
      !traits.identifiesByManifest && (await findImage(engine, wantedImage(image), traits, signal)) !== undefined;
    if (!isThere) missing.push(image);
  }
  if (missing.length > 0) {
    options.onLoading();
    await loadMissing(missing, images.length, archive, traits, options);
  }
  await removeSharedLayers(engine, signal);
  return await assertPresent(images.map(wantedImage), traits, options);
}

async function loadMissing(
  missing: readonly ArchiveImage[],
  imagesTotal: number,
  archive: OpenArchive,
  traits: EngineTraits,
  options: UnlockArchiveOptions,
): Promise<void> {
  const { engine, signal } = options;
  const chainIds = chainIdsOf((await readEngineImages(engine, signal)).values());
  const loads = planImageLoads(missing, { chainIds, needsEveryLayer: traits.needsEveryLayer });
  const progress = new ImageLoadProgress(loads, imagesTotal, imagesTotal - missing.length);
  options.onProgress(() => progress.snapshot());
  await new ImageLoads({ ...options, archive: archive.reader, traits, progress }).run(loads);
}

/** Images of ours that held layers for others have done their work, and so have those of runs that did not end. */
async function removeSharedLayers(engine: DockerEngine, signal: AbortSignal): Promise<void> {
  for (const id of await engine.listImages(signal, SHARED_LAYERS_LABEL)) {
    try {
      await engine.removeImage(id, signal);
    } catch (error) {
      // Somebody has made a container of it, or so: the layers are kept then, which harms nobody.
      if (!hasErrorCode(error, 'engine_error')) throw error;
    }
  }
}

async function loadWhole(
  archive: OpenArchive,
  traits: EngineTraits,
  options: UnlockArchiveOptions,
): Promise<UnlockedImage[]> {
  const { engine, stallTimeoutMs, signal } = options;
  const whole = new ArchiveStream(archive);
  const bytesTotal = archive.reader.plaintextLength;
  let bytesDone = 0;
  options.onLoading();
  options.onProgress(() => ({
    bytesDone,
    bytesTotal,
    imagesDone: 0,
    imagesTotal: whole.images.length,
    currentImages: ['all images of the compressed archive'],
    fraction: bytesDone / bytesTotal / 2,
  }));
  const onBytes = (length: number) => {
    bytesDone += length;
  };
  await feedEngine(
    engine,
    (control) => ({
      length: undefined,
      chunks: whole.chunks({ onBytes, onEnd: control.commit, signal: control.signal }),
    }),
    { stallTimeoutMs, signal, onLayerProgress: () => undefined },
  );
  return await assertPresent(whole.images, traits, options);
}

async function assertPresent(
  images: readonly WantedImage[],
  traits: EngineTraits,
  { engine, signal }: UnlockArchiveOptions,
): Promise<UnlockedImage[]> {
  const loaded: UnlockedImage[] = [];
  for (const image of images) {
    const id = await findImage(engine, image, traits, signal);
    if (id === undefined) {
      throw new LoaderError(
        'engine_image_missing',
        `The Docker engine does not have the image ${image.tags[0] ?? image.id} after all was loaded; see its log.`,
      );
    }
    loaded.push({ id, tags: image.tags });
  }
  return loaded;
}

function wantedImage({ config, tags }: ArchiveImage): WantedImage {
  return { id: config.id, tags, diffIds: config.diffIds };
}
