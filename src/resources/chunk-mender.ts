import { createHash } from 'node:crypto';
import { Outage, type Patience } from '../async/outage.ts';
import type { CopyRecord } from '../cache/copy-record.ts';
import { objectChanged } from '../cdn/cdn-errors.ts';
import type { CdnObject, S3CdnManager } from '../cdn/s3-cdn-manager.ts';
import { LoaderError } from '../errors.ts';
import type { WorkMemory } from '../files/work-memory.ts';
import type { Logger } from '../log/logger.ts';
import { bigPartFile, resourceKey, type ResourceName } from '../resource-name.ts';
import { PREFLIGHT_LENGTH } from '../security/envelope.ts';

export interface ChunkMenderOptions {
  readonly resource: ResourceName;
  readonly record: CopyRecord;
  readonly cdn: Pick<S3CdnManager, 'openObject' | 'readRange'>;
  readonly memory: WorkMemory;
  readonly patience: Patience;
  readonly signal: AbortSignal;
  readonly logger: Logger;
  /** Writes a chunk to its place in the file. */
  readonly writeBack: (bytes: Buffer, position: number) => Promise<void>;
}

/** Gets single chunks from the CDN, in the place of those that a file has lost: each alone, and verified. */
export class ChunkMender {
  readonly #options: ChunkMenderOptions;
  #object: Promise<CdnObject> | undefined;

  constructor(options: ChunkMenderOptions) {
    this.#options = options;
  }

  /**
   * Returns the bytes of a chunk, and writes them back. A file that can't be written keeps its bad chunk: the next reader
   * asks again.
   *
   * @throws LoaderError `cdn_object_changed` when the CDN has another version; `resource_damaged` when the chunk is damaged
   * there too; any code that begins with `cdn_`; the reason of the signal
   */
  async mend(index: number, reason: Error): Promise<Buffer> {
    const { resource, record, logger, writeBack } = this.#options;
    logger.warn(
      { resource, chunk: index, err: reason },
      'A chunk in the cache is damaged or missing: it is fetched again',
    );
    const { chunkLength, chunkSha256 } = digestsOf(record);
    const position = index * chunkLength;
    const bytes = await this.#fetch(position, Math.min(record.bigLength, position + chunkLength));
    if (createHash('sha256').update(bytes).digest('hex') !== chunkSha256[index]) throw damagedOnCdn(resource, index);
    try {
      await writeBack(bytes, position);
    } catch (error) {
      logger.warn({ resource, chunk: index, err: error }, 'A chunk that was fetched again could not be written back');
    }
    return bytes;
  }

  async #fetch(start: number, end: number): Promise<Buffer> {
    const { cdn, memory, patience, signal } = this.#options;
    this.#object ??= this.#open();
    const object = await this.#object;
    using _share = await memory.acquire(end - start, signal);
    const bytes = Buffer.allocUnsafeSlow(end - start);
    let filled = 0;
    for await (const chunk of cdn.readRange(object, start, end, { signal, outage: new Outage(patience) })) {
      filled += chunk.copy(bytes, filled);
    }
    return bytes;
  }

  async #open(): Promise<CdnObject> {
    const { resource, record, cdn, patience, signal } = this.#options;
    const file = bigPartFile(resource);
    const object = await cdn.openObject(resource.folder, file, PREFLIGHT_LENGTH, signal, patience);
    const isOther = object.smallSha256 !== undefined && object.smallSha256 !== record.smallSha256;
    if (isOther || object.length !== record.bigLength) throw objectChanged();
    return object;
  }
}

function digestsOf({ chunks }: CopyRecord): NonNullable<CopyRecord['chunks']> {
  if (chunks === undefined) throw new Error('a chunk of a file without digests can not be mended');
  return chunks;
}

export function damagedOnCdn(resource: ResourceName, index: number): LoaderError {
  const name = resourceKey(resource);
  return new LoaderError(
    'resource_damaged',
    `Chunk ${index} of ${name} on the CDN does not match its digest: upload ${name} again.`,
  );
}
