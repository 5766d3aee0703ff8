import { ListMultipartUploadsCommand, ListPartsCommand, type MultipartUpload } from '@aws-sdk/client-s3';
import { NEVER } from '../async/abort.ts';
import type { CdnClient } from './cdn-client.ts';
import type { ObjectLocation } from './object-location.ts';
import { S3Upload } from './s3-upload.ts';

/** Uploads in a page of the list, and the number of pages that are read. A page has far less than 1 MiB of XML. */
const PAGE_LENGTH = 100;
const MAX_PAGES = 10;
/** How far the clocks of the device and the CDN may differ, in ms. */
const CLOCK_TOLERANCE_MS = 15 * 60_000;

/**
 * Removes the uploads of an object that began around `startedAtMs` (ms since 1970) and have no part: a process may die
 * after it asked for an upload and before it learned its ID. An upload with a part is another process's.
 *
 * @throws LoaderError whose code begins with `cdn_`
 */
export async function removeEmptyUploads(
  client: CdnClient,
  { bucket, key }: ObjectLocation,
  startedAtMs: number,
): Promise<void> {
  try {
    for await (const { Key, UploadId, Initiated } of listUploads(client, { bucket, key })) {
      if (Key !== key || UploadId === undefined || Initiated === undefined) continue;
      if (Math.abs(Initiated.getTime() - startedAtMs) > CLOCK_TOLERANCE_MS) continue;
      const parts = await client.s3.send(new ListPartsCommand({ Bucket: bucket, Key, UploadId, MaxParts: 1 }));
      if ((parts.Parts ?? []).length > 0) continue;
      await new S3Upload(client, { bucket, key, uploadId: UploadId }, [], NEVER).abort();
    }
  } catch (error) {
    throw client.errors.of(error, NEVER, { bucket, key });
  }
}

async function* listUploads(
  client: CdnClient,
  { bucket, key }: ObjectLocation,
): AsyncGenerator<MultipartUpload, void, undefined> {
  const input = { Bucket: bucket, Prefix: key, MaxUploads: PAGE_LENGTH };
  let marker: { KeyMarker?: string; UploadIdMarker?: string } = {};
  for (let page = 0; page < MAX_PAGES; page++) {
    const answer = await client.s3.send(new ListMultipartUploadsCommand({ ...input, ...marker }));
    yield* answer.Uploads ?? [];
    if (answer.IsTruncated !== true || answer.NextKeyMarker === undefined) return;
    marker = {
      KeyMarker: answer.NextKeyMarker,
      ...(answer.NextUploadIdMarker !== undefined && { UploadIdMarker: answer.NextUploadIdMarker }),
    };
  }
}
