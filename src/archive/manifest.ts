import { createHash } from 'node:crypto';
import type { LoaderError } from '../errors.ts';
import { asRecord, parseJson } from '../json.ts';
import { archiveError } from './archive-error.ts';

/** One image as manifest.json of a `docker save` archive names it, by paths within the archive. */
export interface ManifestImage {
  readonly configPath: string;
  readonly tags: readonly string[];
  /** From the lowest to the highest. */
  readonly layerPaths: readonly string[];
}

/** The images of an archive, in the order of its manifest.json. */
export type ArchiveManifest = readonly ManifestImage[];

/** What an image's config says. The config's digest is the image's ID. */
export interface ImageConfig {
  /** `sha256:` and the digest of the config's bytes. */
  readonly id: string;
  /** Digests of the uncompressed layers, from the lowest to the highest. */
  readonly diffIds: readonly string[];
  readonly architecture: string;
  readonly os: string;
  readonly variant: string | undefined;
}

export const MAX_MANIFEST_LENGTH = 8 * 1024 * 1024;
export const MAX_CONFIG_LENGTH = 4 * 1024 * 1024;
export const MAX_IMAGES = 1000;
/** The engine's own limit is near 128. */
const MAX_LAYERS = 512;
const MAX_TAGS = 100;
const MAX_TEXT_LENGTH = 4096;
/**
 * A repository, with or without a registry before it, and a version (distribution/reference, the grammar of
 * references).
 */
const TAG = /^(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?\/)?[a-z0-9]+(?:(?:[._]|__|-+|\/)[a-z0-9]+)*:\w[\w.-]{0,127}$/;

/** Tells whether Docker allows a tag such as `azaion/api:1`. */
export function isImageTag(text: string): boolean {
  return TAG.test(text);
}

/** Reads manifest.json. @throws LoaderError `archive_invalid` */
export function parseManifest(json: Buffer): ArchiveManifest {
  const items = readJson(json, 'manifest.json');
  if (!Array.isArray(items) || items.length === 0) throw archiveError('its manifest.json names no images');
  if (items.length > MAX_IMAGES) {
    throw archiveError(`its manifest.json names ${items.length} images; at most ${MAX_IMAGES} are allowed`);
  }
  const known = new Map<string, string>();
  return items.map((item: unknown) => {
    const { Config: config, RepoTags: tags, Layers: layers } = readRecord(item, 'manifest.json');
    const isSound = isText(config) && isTextList(layers ?? [], MAX_LAYERS) && isTextList(tags ?? [], MAX_TAGS);
    if (!isSound) throw archiveError('its manifest.json has an image without a valid Config, RepoTags and Layers');
    for (const tag of (tags ?? []) as string[]) {
      if (!isImageTag(tag)) throw archiveError('its manifest.json has a tag that Docker does not allow');
      if ((known.get(tag) ?? config) !== config) throw archiveError(`its manifest.json gives ${tag} to two images`);
      known.set(tag, config);
    }
    return {
      configPath: archivePath(config),
      tags: (tags ?? []) as string[],
      layerPaths: ((layers ?? []) as string[]).map(archivePath),
    };
  });
}

/** Reads an image's config. Its path may name its digest. @throws LoaderError `archive_invalid` */
export function parseImageConfig(json: Buffer, configPath: string): ImageConfig {
  const hex = createHash('sha256').update(json).digest('hex');
  const expected = digestInPath(configPath);
  if (expected !== undefined && expected !== hex)
    throw archiveError(`the image config ${configPath} does not match its digest`);
  const config = readRecord(readJson(json, configPath), configPath);
  const rootfs = readRecord(config['rootfs'] ?? {}, configPath);
  const diffIds = rootfs['diff_ids'] ?? [];
  const isSound =
    isTextList(diffIds, MAX_LAYERS) &&
    diffIds.every((diffId) => /^sha256:[0-9a-f]{64}$/.test(diffId)) &&
    isText(config['architecture']) &&
    isText(config['os']);
  if (!isSound) throw archiveError(`the image config ${configPath} has no valid architecture, os and rootfs.diff_ids`);
  return {
    id: `sha256:${hex}`,
    diffIds,
    architecture: config['architecture'] as string,
    os: config['os'] as string,
    variant: isText(config['variant']) ? config['variant'] : undefined,
  };
}

/** The SHA-256, in hex, that a path of an archive names: `<hex>.json` and `blobs/sha256/<hex>` do. */
export function digestInPath(path: string): string | undefined {
  return /^blobs\/sha256\/([0-9a-f]{64})$/.exec(path)?.[1] ?? /^([0-9a-f]{64})\.json$/.exec(path)?.[1];
}

/**
 * Returns the canonical form of a path within an archive, without `./` and without a `/` at its end.
 *
 * @throws LoaderError `archive_invalid` for one that leads out of the archive
 */
export function archivePath(path: string): string {
  const segments: string[] = [];
  for (const segment of path.split('/')) {
    if (segment === '' || segment === '.') continue;
    if (segment === '..' && segments.pop() === undefined) throw leadsOut();
    if (segment !== '..') segments.push(segment);
  }
  if (path.startsWith('/') || path.includes('\0')) throw leadsOut();
  return segments.join('/');
}

function leadsOut(): LoaderError {
  return archiveError('a path in it leads out of the archive');
}

/** It is strict about UTF-8 too, since a damaged block must not become a name. */
function readJson(json: Buffer, name: string): unknown {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(json);
  } catch {
    throw noJson(name);
  }
  const value = parseJson(text);
  if (value === undefined) throw noJson(name);
  return value;
}

/** The error has no cause, since that would quote the text. */
function noJson(name: string): LoaderError {
  return archiveError(`${name} in it is not JSON`);
}

function readRecord(value: unknown, name: string): Readonly<Record<string, unknown>> {
  const record = asRecord(value);
  if (record === undefined) throw archiveError(`${name} in it does not have the form that docker save writes`);
  return record;
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && value.length <= MAX_TEXT_LENGTH;
}

function isTextList(value: unknown, maxLength: number): value is string[] {
  return Array.isArray(value) && value.length <= maxLength && value.every(isText);
}
