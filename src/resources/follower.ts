import type { FileHandle } from 'node:fs/promises';
import { unlessAborted } from '../async/abort.ts';
import type { DraftFile } from '../files/draft-file.ts';
import type { ReaderLimits, WriteProgress, WrittenRanges } from './written-ranges.ts';

/** What a follower knows of its transfer. */
export interface FollowedTransfer {
  readonly draft: Promise<DraftFile>;
  readonly written: WrittenRanges;
  readonly ended: Promise<void>;
  readonly publishFailure: Error | undefined;
  leave(follower: Follower): Promise<void>;
}

/** What a follower reads. */
export interface TransferFile {
  readonly handle: FileHandle;
  readonly writeBack: (bytes: Buffer, position: number) => Promise<void>;
}

/**
 * The part of one caller in a transfer.
 *
 * Dispose of it once the last chunk was used: a transfer that all have left before its end is aborted. Its connections
 * are closed and its file is gone then.
 */
export class Follower implements AsyncDisposable {
  readonly #transfer: FollowedTransfer;
  readonly #limits: ReaderLimits;

  constructor(transfer: FollowedTransfer, limits: ReaderLimits) {
    this.#transfer = transfer;
    this.#limits = limits;
  }

  /**
   * The file that is being written, open until the disposal.
   *
   * @throws LoaderError `cache_unusable` when it can't be made: the caller must read from the CDN itself
   */
  async file(): Promise<TransferFile> {
    const draft = await this.#transfer.draft;
    return { handle: draft.handle, writeBack: (bytes, position) => draft.write(bytes, position) };
  }

  /**
   * Waits until the cache has the whole object, without reading it. It yields how far the transfer is, at once and then
   * as bytes come.
   *
   * @throws LoaderError `cache_unusable` when the file can't be written or published. Any other error is the CDN's, or,
   * at once, the reason of the signal.
   */
  async *stored(): AsyncGenerator<WriteProgress, void, undefined> {
    yield* this.#transfer.written.progress(this.#limits);
    await unlessAborted(this.#transfer.ended, this.#limits.signal);
    if (this.#transfer.publishFailure !== undefined) throw this.#transfer.publishFailure;
  }

  /**
   * Waits until the bytes before `position` are in the file.
   *
   * @throws LoaderError `cache_unusable` when the file can't be written: the caller must read from the CDN itself. Any other
   * error is the CDN's, or the reason of the signal.
   */
  async reach(position: number): Promise<void> {
    await this.#transfer.written.reach(position, this.#limits);
  }

  /** Whether the bytes before `position` are in the file. */
  isThere(position: number): boolean {
    return this.#transfer.written.available >= position;
  }

  /** Never fails. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transfer.leave(this);
  }
}
