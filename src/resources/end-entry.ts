import type { S3CdnManager } from '../cdn/s3-cdn-manager.ts';
import { bigPartFile } from '../resource-name.ts';
import type { JournalEntry } from './upload-journal.ts';

/**
 * Removes the entry of an upload that has ended. Where the CDN was asked more than once for its ID, or never told it,
 * what has begun in its place is removed before.
 *
 * @throws LoaderError whose code begins with `cdn_`: the entry stays
 */
export async function endEntry(entry: JournalEntry, cdn: Pick<S3CdnManager, 'removeEmptyUploads'>): Promise<void> {
  const { folder, name, startedAtMs, target, isRepeated } = entry.record;
  if (target === undefined || isRepeated === true) {
    await cdn.removeEmptyUploads(folder, bigPartFile({ folder, name }), startedAtMs);
  }
  await entry.remove();
}
