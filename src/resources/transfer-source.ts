import type { CopyRecord } from '../cache/copy-record.ts';
import type { CdnObject, S3CdnManager } from '../cdn/s3-cdn-manager.ts';
import type { ResourceName } from '../resource-name.ts';
import type { PartPair } from './part-pair.ts';

/** A big part on the CDN, and the copy that the cache makes of it. */
export interface TransferSource {
  readonly cdn: Pick<S3CdnManager, 'readRange'>;
  readonly object: CdnObject;
  readonly resource: ResourceName;
  readonly record: CopyRecord;
  readonly pair: Pick<PartPair, 'confirm'>;
}
