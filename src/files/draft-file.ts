import { link, open, rename, rm, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { systemErrorCode } from '../errors.ts';
import { writeFully } from './file-chunks.ts';
import { syncFolder } from './folders.ts';

/** The errors of `link` on file systems without hard links, such as FAT. */
const NO_LINKS: readonly string[] = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'];

/**
 * A file in the making. It has a name of its own until `publish` moves it, whole and synced, to its place. The handle
 * stays readable until the disposal, which closes it and removes a file that was not published.
 *
 * It is ours since the libraries that write atomically take the whole content at once, and do not sync the folder.
 */
export class DraftFile implements AsyncDisposable {
  readonly handle: FileHandle;
  readonly #path: string;
  #named = true;
  /** Under way, or failed. */
  #syncing: Promise<void> | undefined;

  private constructor(handle: FileHandle, filePath: string) {
    this.handle = handle;
    this.#path = filePath;
  }

  /** `mode` is that of the file when it is published; the umask is taken off. */
  static async create(filePath: string, mode = 0o600): Promise<DraftFile> {
    return new DraftFile(await open(filePath, 'wx+', mode), filePath);
  }

  /** Writes all of `bytes` from byte `position` on. They must not change meanwhile. */
  async write(bytes: Buffer, position: number): Promise<void> {
    await writeFully(this.handle, bytes, position);
  }

  /** Puts what was written on the disk. @throws the system's error, also that of `startSync` */
  async sync(): Promise<void> {
    await this.#syncing; // The system tells a failure once.
    await this.handle.sync();
  }

  /** Begins to put on the disk what was written, unless that is under way, so that less is left for `sync`. */
  startSync(): void {
    if (this.#syncing !== undefined) return;
    this.#syncing = this.handle.sync().then(() => (this.#syncing = undefined));
    this.#syncing.catch(() => undefined); // `sync` throws it.
  }

  /** Syncs the file to the disk, moves it to `target` on the same file system, and syncs the folder. */
  async publish(target: string): Promise<void> {
    await this.sync();
    await rename(this.#path, target);
    this.#named = false;
    await syncFolder(path.dirname(target));
  }

  /** The same without a sync: after a power cut the earlier file may be there, or an empty one. */
  async place(target: string): Promise<void> {
    await rename(this.#path, target);
    this.#named = false;
  }

  /** As `publish`, but never in place of another file. @throws Error `EEXIST` when `target` is there; that file stays */
  async publishNew(target: string): Promise<void> {
    await this.sync();
    if (await tryLink(this.#path, target)) {
      await rm(this.#path);
    } else {
      // An empty file of ours reserves the name until this one takes its place.
      await (await open(target, 'wx')).close();
      await rename(this.#path, target);
    }
    this.#named = false;
    await syncFolder(path.dirname(target));
  }

  /** Removes the file unless it was published; its handle stays open. */
  async discard(): Promise<void> {
    if (!this.#named) return;
    this.#named = false;
    await rm(this.#path, { force: true });
  }

  async close(): Promise<void> {
    await this.handle.close();
  }

  /** Closes the file, and removes it unless it was published. It never throws: the next start removes what is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled([this.discard(), this.close()]);
  }
}

/** False on file systems without hard links. */
async function tryLink(existing: string, target: string): Promise<boolean> {
  try {
    await link(existing, target);
    return true;
  } catch (error) {
    if (NO_LINKS.includes(systemErrorCode(error) ?? '')) return false;
    throw error;
  }
}
