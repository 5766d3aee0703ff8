import { ListMultipartUploadsCommand, ListPartsCommand, type S3Client } from '@aws-sdk/client-s3';
import { NEVER } from '../async/abort.ts';
import { toCdnError } from './cdn-errors.ts';
import type { ObjectLocation } from './object-reader.ts';
import { S3Upload } from './s3-upload.ts';

/** How far the clocks of the device and the CDN may differ, in ms. */
const CLOCK_TOLERANCE_MS = 15 * 60_000;

/**
 * Removes the uploads of an object that began around `startedAtMs` (ms since 1970) and have no part: a process may die
 * after it asked for an upload and before it learned its ID. An upload with a part is another process's.
 *
 * @throws LoaderError whose code begins with `cdn_`
 */
export async function removeEmptyUploads(
  client: S3Client,
  { bucket, key }: ObjectLocation,
  startedAtMs: number,
): Promise<void> {
  try {
    const { Uploads: uploads = [] } = await client.send(
      new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: key }),
    );
    for (const { Key, UploadId, Initiated } of uploads) {
      if (Key !== key || UploadId === undefined || Initiated === undefined) continue;
      if (Math.abs(Initiated.getTime() - startedAtMs) > CLOCK_TOLERANCE_MS) continue;
      const { Parts: parts = [] } = await client.send(new ListPartsCommand({ Bucket: bucket, Key, UploadId }));
      if (parts.length > 0) continue;
      await new S3Upload(client, { bucket, key, uploadId: UploadId }, [], NEVER).abort();
    }
  } catch (error) {
    throw toCdnError(error, NEVER);
  }
}
