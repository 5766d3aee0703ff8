import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import path from 'node:path';

/**
 * A file in the making. It has a name of its own until `publish` moves it, whole and synced, to its place;
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

  /** Writes all of `bytes` from byte `position` on. They must stay as they are until then. */
  async write(bytes: Buffer, position: number): Promise<void> {
    for (let written = 0; written < bytes.length;) {
      const { bytesWritten } = await this.handle.write(bytes, written, bytes.length - written, position + written);
      written += bytesWritten;
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
