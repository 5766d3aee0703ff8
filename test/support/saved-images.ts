import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { sha256 } from '../../lab/sha256.ts';

const run = promisify(execFile);

/** An image as it came out of an engine. */
export interface SavedImage {
  /** `sha256:` and the digest of its config, whatever the engine calls it. */
  readonly configDigest: string;
  /** `sha256:` and the digest of each layer's content, the lowest first. */
  readonly layerDigests: readonly string[];
}

interface ManifestItem {
  readonly Config: string;
  readonly Layers: readonly string[] | null;
}

/**
 * Reads what `docker save` wrote, by the bytes of its files, with the `tar` of the machine.
 * @throws Error for a tar in which a config or a layer is missing
 */
export async function readSavedImages(tar: Buffer): Promise<SavedImage[]> {
  const folder = await mkdtemp(path.join(tmpdir(), 'saved-images-'));
  try {
    await writeFile(path.join(folder, 'images.tar'), tar);
    await run('tar', ['-x', '-f', 'images.tar'], { cwd: folder });
    const digests = new Map<string, Promise<string>>();
    const digest = async (name: string) => {
      let known = digests.get(name);
      if (known === undefined) digests.set(name, (known = digestOf(path.join(folder, name))));
      return await known;
    };
    const manifest = JSON.parse(await readFile(path.join(folder, 'manifest.json'), 'utf8')) as ManifestItem[];
    return await Promise.all(
      manifest.map(async ({ Config, Layers }) => ({
        configDigest: await digest(Config),
        layerDigests: await Promise.all((Layers ?? []).map(digest)),
      })),
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function digestOf(filePath: string): Promise<string> {
  return `sha256:${sha256(decompress(await readFile(filePath)))}`;
}

function decompress(file: Buffer): Buffer {
  if (file.subarray(0, 2).toString('hex') === '1f8b') return gunzipSync(file);
  return file.subarray(0, 4).toString('hex') === '28b52ffd' ? zstdDecompressSync(file) : file;
}
