import type { DraftFile } from '../files/draft-file.ts';
import { type CopyFiles, isAt } from './copy-files.ts';
import { isDigestStem, type CopyPlace } from './copy-paths.ts';
import { formatRecord, type CopyRecord } from './copy-record.ts';
import type { DeviceKey } from './device-key.ts';
import type { DraftsFolder } from './drafts-folder.ts';
import { removeLegacyFiles } from './legacy-record.ts';

/** Writes the records of copies. */
export class CopyRecords {
  readonly #files: CopyFiles;
  readonly #drafts: DraftsFolder;
  readonly #key: DeviceKey;

  constructor(files: CopyFiles, drafts: DraftsFolder, key: DeviceKey) {
    this.#files = files;
    this.#drafts = drafts;
    this.#key = key;
  }

  /** A record that has no place yet. `name` is that of the resource, if it is known. @throws LoaderError `cache_unusable` */
  async draft(place: CopyPlace, record: CopyRecord, name: string | undefined): Promise<DraftFile> {
    const draft = await this.#drafts.create();
    try {
      const told = isDigestStem(place.stem) ? name : place.stem;
      await draft.write(formatRecord(record, place, told, await this.#key.mac()), 0);
      return draft;
    } catch (error) {
      await draft[Symbol.asyncDispose]();
      throw error;
    }
  }

  /**
   * Replaces the record of the copy that has this inode, which the caller has open. `change` gets the present record, and
   * what it returns is written.
   *
   * @returns false when that copy is no longer the present one
   * @throws LoaderError `cache_unusable`; the system's error
   */
  async change(
    place: CopyPlace,
    inode: bigint,
    change: (record: CopyRecord | undefined) => CopyRecord,
    name?: string,
  ): Promise<boolean> {
    using _lock = await this.#files.lock(place);
    // Looked up under the lock: while the copy was read, a link that leads out of the cache may have replaced its folder.
    const paths = await this.#files.find(place);
    if (!(await isAt(paths.big, inode))) return false;
    const { record } = await this.#files.readRecord(place, paths);
    await using draft = await this.draft(place, change(record), name);
    await draft.publish(paths.record);
    await removeLegacyFiles(paths.big);
    return true;
  }
}
