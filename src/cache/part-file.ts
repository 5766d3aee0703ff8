import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import path from 'node:path';

/**
 * A file of the cache in the making. It has a name of its own until `publish` moves it, whole and synced, to its place;
 * every other end goes through `discard`. The handle stays readable until `close`, whatever became of the name.
 */
export class PartFile {
  readonly handle: FileHandle;
  readonly #path: string;
  #named = true;

  private constructor(handle: FileHandle, filePath: string) {
    this.handle = handle;
    this.#path = filePath;
  }

  static async create(filePath: string): Promise<PartFile> {
    return new PartFile(await open(filePath, 'wx+', 0o600), filePath);
  }

  /** Writes all of `chunks`, one after the other, from byte `position` on. */
  async write(chunks: readonly Buffer[], position: number): Promise<void> {
    let written = 0;
    let rest = chunks;
    while (rest.length > 0) {
      const { bytesWritten } = await this.handle.writev(rest, position + written);
      written += bytesWritten;
      rest = dropBytes(rest, bytesWritten);
    }
  }

  /** Puts what was written on the disk. */
  async sync(): Promise<void> {
    await this.handle.sync();
  }

  /** Syncs the file to the disk, moves it to `target` on the same file system, and syncs the folder. */
  async publish(target: string): Promise<void> {
    await this.sync();
    await rename(this.#path, target);
    this.#named = false;
    await syncFolder(path.dirname(target));
  }

  async discard(): Promise<void> {
    if (!this.#named) return;
    this.#named = false;
    await rm(this.#path, { force: true });
  }

  async close(): Promise<void> {
    await this.handle.close();
  }
}

/** Puts the names in a folder on the disk. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function dropBytes(chunks: readonly Buffer[], count: number): readonly Buffer[] {
  let left = count;
  let index = 0;
  for (let chunk = chunks[0]; chunk !== undefined && left >= chunk.length; chunk = chunks[index]) {
    left -= chunk.length;
    index++;
  }
  const first = chunks[index];
  return first === undefined ? [] : [first.subarray(left), ...chunks.slice(index + 1)];
}
