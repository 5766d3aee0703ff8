import type { ArchiveLayer } from '../archive/archive-index.ts';
import type { SoughtImage } from '../docker/docker-engine.ts';
import { manifestIds, type LayerFile } from '../docker/manifest-ids.ts';
import { asRecord, parseJson } from '../json.ts';
import type { ImageLoad } from './image-load-plan.ts';

/** What tells an image of an archive from all others in an engine. */
export function soughtImage({
  id,
  configJson,
  tags,
  layers,
}: Pick<ImageLoad, 'configJson' | 'id' | 'layers' | 'tags'>): SoughtImage {
  const files = layers.map(layerFile).filter((file) => file !== undefined);
  return {
    id,
    tags,
    diffIds: layers.map(({ diffId }) => diffId),
    // A layer whose file's digest is not known leaves the manifest unknown.
    manifestIds: files.length < layers.length ? [] : manifestIds({ digest: id, length: configJson.length }, files),
    config: asRecord(asRecord(parseJson(configJson.toString('utf8')))?.['config']) ?? {},
  };
}

/** Undefined where the archive does not tell the digest of the file: in the classic layout with compressed layers. */
function layerFile({ compression, diffId, file, sha256 }: ArchiveLayer): LayerFile | undefined {
  const digest = sha256 === undefined ? (compression === 'none' ? diffId : undefined) : `sha256:${sha256}`;
  return digest === undefined ? undefined : { digest, length: file.length, compression };
}
