import { createCipheriv, createHash } from 'node:crypto';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { tarArchive, type TarEntry, type TarNameStyle } from './tar-entry.ts';
import { sha256 } from '../../lab/sha256.ts';

/** Makes images, and archives of them as `docker save` writes them, without an engine. */

export interface Image {
  /** `sha256:` and the digest of `config`: the engine's name for it. */
  readonly id: string;
  readonly tags: readonly string[];
  /** Uncompressed tars, the lowest first. */
  readonly layers: readonly Buffer[];
  /** `sha256:` and the digest of each layer: what the engine lists as RootFS.Layers. */
  readonly diffIds: readonly string[];
  /** The JSON text with architecture, os, config and rootfs. */
  readonly config: Buffer;
}

export interface ImageOptions {
  /** Such as `azaion/api:1.2.3`; none when left out. */
  readonly tags?: readonly string[];
  readonly layers: readonly Buffer[];
  readonly architecture?: string;
  readonly os?: string;
  /** The part of the configuration that containers get, such as `{ Labels: { name: 'api' } }`. */
  readonly config?: Readonly<Record<string, unknown>>;
}

export interface ArchiveOptions {
  /** `classic` as Docker wrote it until 24, `oci` as it does since 25. */
  readonly layout?: 'classic' | 'oci';
  /** The compression of the layers. The classic layout has none or gzip; Docker 20.10 loads no zstd. */
  readonly compression?: 'none' | 'gzip' | 'zstd';
  /** Classic only: where the content of a layer is there already, a symbolic link to it, as Docker 1.13 to 24 wrote it. */
  readonly linksRepeatedLayers?: boolean;
  /** Before all others, where Docker writes it near the end. */
  readonly putsManifestFirst?: boolean;
  readonly nameStyle?: TarNameStyle;
}

/** Layers of one archive, by the ID that this layout gives to each. */
interface ClassicLayer {
  readonly id: string;
  readonly json: string;
  readonly diffId: string;
  readonly content: Buffer;
}

type Descriptor = Readonly<Record<string, unknown>>;

const CREATED = '2024-01-01T00:00:00Z';
const OCI = 'application/vnd.oci.image';
const LAYER_SUFFIXES = { none: '', gzip: '+gzip', zstd: '+zstd' };

/** Bytes that do not compress, and are the same for the same seed. */
export function seededBytes(seed: string, size: number): Buffer {
  const key = createHash('sha256').update(seed).digest();
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size));
}

/** The tar of a layer with these files, by name, such as `app/model.bin`. It needs no entries for their folders. */
export function makeLayer(files: Readonly<Record<string, Uint8Array | string>>): Buffer {
  return tarArchive(Object.entries(files).map(([name, content]) => ({ name, content })));
}

export function makeImage(options: ImageOptions): Image {
  const { tags = [], layers, architecture = 'amd64', os = 'linux', config = {} } = options;
  const diffIds = layers.map((layer) => `sha256:${sha256(layer)}`);
  const json = JSON.stringify({
    architecture,
    config,
    created: CREATED,
    history: diffIds.map((_, index) => ({ created: CREATED, created_by: `step ${index}` })),
    os,
    rootfs: { type: 'layers', diff_ids: diffIds },
  });
  return { id: `sha256:${sha256(json)}`, tags, layers, diffIds, config: Buffer.from(json) };
}

/** The archive of `docker save` with these images. */
export function saveImages(images: readonly Image[], options: ArchiveOptions = {}): Buffer {
  return tarArchive(archiveEntries(images, options));
}

/** The same as entries, for tests that change some before they call `tarArchive`. */
export function archiveEntries(images: readonly Image[], options: ArchiveOptions = {}): TarEntry[] {
  const files = options.layout === 'oci' ? ociFiles(images, options) : classicFiles(images, options);
  // Docker walks a folder: by name, each folder before what is in it.
  const sorted = [...files.values()].sort((one, other) => (one.name < other.name ? -1 : 1));
  const isFirst = (entry: TarEntry) => options.putsManifestFirst === true && entry.name === 'manifest.json';
  const ordered = [...sorted.filter(isFirst), ...sorted.filter((entry) => !isFirst(entry))];
  return ordered.map((entry) => ({ ...entry, nameStyle: options.nameStyle ?? 'ustar' }));
}

function classicFiles(images: readonly Image[], options: ArchiveOptions): Map<string, TarEntry> {
  const { compression = 'none', linksRepeatedLayers = false } = options;
  if (compression === 'zstd') throw new Error('the classic layout has no zstd');
  const files = new Map<string, TarEntry>();
  const placeOfLayer = new Map<string, string>();
  const manifest = images.map((image) => {
    const layers = classicLayers(image);
    for (const { id, json, diffId, content } of layers) {
      if (files.has(`${id}/`)) continue;
      addFolder(files, `${id}/`);
      addFile(files, `${id}/VERSION`, '1.0');
      addFile(files, `${id}/json`, json);
      const name = `${id}/layer.tar`;
      const place = placeOfLayer.get(diffId);
      placeOfLayer.set(diffId, place ?? name);
      if (linksRepeatedLayers && place !== undefined) {
        files.set(name, { name, type: 'symlink', linkName: `../${place}` });
      } else {
        addFile(files, name, compress(content, compression));
      }
    }
    const config = `${hexOf(image.id)}.json`;
    addFile(files, config, image.config);
    return { Config: config, RepoTags: tagsOf(image), Layers: layers.map(({ id }) => `${id}/layer.tar`) };
  });
  addJson(files, 'manifest.json', manifest);
  addRepositories(files, images);
  return files;
}

function ociFiles(images: readonly Image[], options: ArchiveOptions): Map<string, TarEntry> {
  const { compression = 'none' } = options;
  const files = new Map<string, TarEntry>();
  addFolder(files, 'blobs/');
  addFolder(files, 'blobs/sha256/');
  const addBlob = (mediaType: string, content: Buffer): { path: string; descriptor: Descriptor } => {
    const digest = sha256(content);
    const path = `blobs/sha256/${digest}`;
    addFile(files, path, content);
    return { path, descriptor: { mediaType, digest: `sha256:${digest}`, size: content.length } };
  };
  const index: Descriptor[] = [];
  const manifest = images.map((image) => {
    const layers = image.layers.map((layer) =>
      addBlob(`${OCI}.layer.v1.tar${LAYER_SUFFIXES[compression]}`, compress(layer, compression)),
    );
    // Docker leaves these among the blobs, where nothing refers to them.
    for (const { json } of classicLayers(image)) addBlob('', Buffer.from(json));
    const config = addBlob(`${OCI}.config.v1+json`, image.config);
    const ociManifest = {
      schemaVersion: 2,
      mediaType: `${OCI}.manifest.v1+json`,
      config: config.descriptor,
      layers: layers.map(({ descriptor }) => descriptor),
    };
    const { descriptor } = addBlob(ociManifest.mediaType, Buffer.from(JSON.stringify(ociManifest)));
    index.push(...annotated(descriptor, image.tags));
    return {
      Config: config.path,
      RepoTags: tagsOf(image),
      Layers: layers.map(({ path }) => path),
      LayerSources: Object.fromEntries(layers.map((layer, at) => [image.diffIds[at] ?? '', layer.descriptor])),
    };
  });
  addJson(files, 'index.json', { schemaVersion: 2, mediaType: `${OCI}.index.v1+json`, manifests: index });
  addJson(files, 'manifest.json', manifest);
  addJson(files, 'oci-layout', { imageLayoutVersion: '1.0.0' });
  addRepositories(files, images);
  return files;
}

/** One entry of index.json for each tag, or one for an image that has none. */
function annotated(descriptor: Descriptor, tags: readonly string[]): Descriptor[] {
  if (tags.length === 0) return [descriptor];
  return tags.map((tag) => ({
    ...descriptor,
    annotations: {
      'io.containerd.image.name': `docker.io/${tag.includes('/') ? '' : 'library/'}${tag}`,
      'org.opencontainers.image.ref.name': splitTag(tag).version,
    },
  }));
}

/** The ID of a layer stands for all below it too, and that of the uppermost for the image's configuration. */
function classicLayers(image: Image): ClassicLayer[] {
  const layers: ClassicLayer[] = [];
  for (const [at, content] of image.layers.entries()) {
    const parent = layers.at(-1)?.id;
    const diffId = image.diffIds[at] ?? '';
    const isTop = at === image.layers.length - 1;
    const id = sha256(`${parent ?? ''} ${diffId} ${isTop ? image.id : ''}`);
    const json = JSON.stringify({ id, ...(parent === undefined ? {} : { parent }), created: CREATED, os: 'linux' });
    layers.push({ id, json, diffId, content });
  }
  return layers;
}

/** The file `repositories`, which engines of before 2015 read: repository, tag and uppermost layer. */
function addRepositories(files: Map<string, TarEntry>, images: readonly Image[]): void {
  const repositories: Record<string, Record<string, string>> = {};
  for (const image of images) {
    for (const tag of image.tags) {
      const { repository, version } = splitTag(tag);
      (repositories[repository] ??= {})[version] = classicLayers(image).at(-1)?.id ?? '';
    }
  }
  if (Object.keys(repositories).length > 0) addJson(files, 'repositories', repositories);
}

function addFolder(files: Map<string, TarEntry>, name: string): void {
  files.set(name, { name, type: 'directory' });
}

function addFile(files: Map<string, TarEntry>, name: string, content: Uint8Array | string): void {
  files.set(name, { name, content });
}

function addJson(files: Map<string, TarEntry>, name: string, value: unknown): void {
  addFile(files, name, `${JSON.stringify(value)}\n`);
}

/** Docker writes null for none. */
function tagsOf(image: Image): readonly string[] | null {
  return image.tags.length === 0 ? null : image.tags;
}

function splitTag(tag: string): { repository: string; version: string } {
  const colon = tag.lastIndexOf(':');
  return { repository: tag.slice(0, colon), version: tag.slice(colon + 1) };
}

function compress(content: Buffer, compression: 'none' | 'gzip' | 'zstd'): Buffer {
  if (compression === 'gzip') return gzipSync(content, { level: 1 });
  return compression === 'zstd' ? zstdCompressSync(content) : content;
}

function hexOf(digest: string): string {
  return digest.slice('sha256:'.length);
}
