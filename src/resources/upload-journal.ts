import { randomUUID } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { Ajv, type ValidateFunction } from 'ajv';
import type { Static } from 'typebox';
import { Changes } from '../async/changes.ts';
import { systemErrorCode } from '../errors.ts';
import { readSmallFile, writeSmallFile } from '../files/small-file.ts';
import { Type } from '../json-schemas.ts';
import { parseJson } from '../json.ts';
import type { Logger } from '../log/logger.ts';

/** Under STATE_DIR. */
const FOLDER = 'uploads';
const SUFFIX = '.json';
/** Bytes: 10,000 parts and 40,000 digests, with room to spare. */
const MAX_LENGTH = 8 * 1024 * 1024;

/** Of the manifest, all but what is chosen when it is written. Absent in entries of earlier versions, which wrote none. */
const MANIFEST_FACTS = Type.Object({
  length: Type.Integer(),
  sha256: Type.String(),
  small: Type.Object({ length: Type.Integer(), sha256: Type.String() }),
  big: Type.Object({ length: Type.Integer(), chunkLength: Type.Integer(), chunkSha256: Type.Array(Type.String()) }),
});

const RECORD = Type.Object({
  version: Type.Literal(1),
  folder: Type.String(),
  name: Type.String(),
  /** ms since 1970. */
  startedAtMs: Type.Integer(),
  /** Whether the CDN was asked for the upload more than once: another one, without a part, may be left. */
  isRepeated: Type.Optional(Type.Boolean()),
  /** The S3 upload; absent before the CDN has told its ID. */
  target: Type.Optional(Type.Object({ bucket: Type.String(), key: Type.String(), uploadId: Type.String() })),
  /** Present from just before the small part is stored. */
  publication: Type.Optional(
    Type.Object({
      parts: Type.Array(Type.Object({ number: Type.Integer(), etag: Type.String() })),
      /** Hex, of the small part of this upload. */
      smallSha256: Type.String(),
      /** The session has encrypted both small parts (base64): they are of no use to a reader of the disk. */
      small: Type.String(),
      earlierSha256: Type.Optional(Type.String()),
      earlier: Type.Optional(Type.String()),
      manifest: Type.Optional(MANIFEST_FACTS),
      /** Whether the object was seen to stand: then only the second look is missing. ms since 1970. */
      standsSinceMs: Type.Optional(Type.Integer()),
    }),
  ),
});

/** What is known of one upload that has begun (docs/protocol.md section 9). */
export type UploadRecord = Static<typeof RECORD>;

/** What is being published, as the journal has it. */
export type PublicationRecord = NonNullable<UploadRecord['publication']>;

/**
 * The uploads that have begun and not ended, as files in STATE_DIR, so that the next process can complete or remove what
 * this one leaves: one entry each, which its upload owns until it is released.
 */
export class UploadJournal {
  readonly #folder: string;
  readonly #logger: Logger;
  readonly #changes = new Changes();
  readonly #released = new Set<JournalEntry>();

  constructor(stateDir: string, logger: Logger) {
    this.#folder = path.join(stateDir, FOLDER);
    this.#logger = logger;
  }

  /** Resolves when an entry is released the next time. */
  get nextRelease(): Promise<undefined> {
    return this.#changes.next;
  }

  /** The entries that no upload owns any more. */
  get released(): readonly JournalEntry[] {
    return [...this.#released];
  }

  /** Begins an entry. It never fails: without it, only a process that dies leaves something behind. */
  async begin(folder: string, name: string): Promise<JournalEntry> {
    const record: UploadRecord = { version: 1, folder, name, startedAtMs: Date.now() };
    const entry = this.#entry(randomUUID() + SUFFIX, record);
    await entry.note(record);
    return entry;
  }

  /** Takes over what an earlier process has left. It never fails. Call it once, before the first upload. */
  async load(): Promise<void> {
    const files = await this.#list();
    if (files.length === 0) return;
    const isSound = new Ajv().compile<UploadRecord>(RECORD);
    for (const file of files) {
      const filePath = path.join(this.#folder, file);
      if (!file.endsWith(SUFFIX)) {
        await rm(filePath, { force: true, recursive: true });
        continue;
      }
      const record = await this.#read(filePath, isSound);
      if (record !== undefined) this.#released.add(this.#entry(file, record));
    }
  }

  #entry(file: string, record: UploadRecord): JournalEntry {
    return new JournalEntry(path.join(this.#folder, file), record, {
      logger: this.#logger,
      released: this.#released,
      changes: this.#changes,
    });
  }

  async #list(): Promise<string[]> {
    try {
      return await readdir(this.#folder);
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT')
        this.#logger.warn({ err: error }, 'The journal of uploads can not be read');
      return [];
    }
  }

  /** A damaged entry costs itself: the resource is uploaded again. */
  async #read(filePath: string, isSound: ValidateFunction<UploadRecord>): Promise<UploadRecord | undefined> {
    try {
      const record = parseJson((await readSmallFile(filePath, MAX_LENGTH)) ?? '');
      if (isSound(record)) return record;
      this.#logger.warn({ file: filePath }, 'An entry of the journal of uploads is damaged and was removed');
      await rm(filePath, { force: true, recursive: true });
    } catch (error) {
      this.#logger.warn({ err: error, file: filePath }, 'An entry of the journal of uploads can not be read');
    }
    return undefined;
  }
}

interface JournalEntryOptions {
  readonly logger: Logger;
  readonly released: Set<JournalEntry>;
  readonly changes: Changes;
}

/** One upload in the journal. Its disposal releases it, unless it was removed. */
export class JournalEntry implements Disposable {
  readonly #path: string;
  readonly #options: JournalEntryOptions;
  #record: UploadRecord;
  #hasEnded = false;

  constructor(filePath: string, record: UploadRecord, options: JournalEntryOptions) {
    this.#path = filePath;
    this.#record = record;
    this.#options = options;
  }

  get record(): UploadRecord {
    return this.#record;
  }

  /** Replaces the record, so that a process that dies leaves it. It never fails. */
  async note(record: UploadRecord): Promise<void> {
    await this.#write(record, 'fast');
  }

  /** The same, so that it is also there after a power cut. It never fails. */
  async commit(record: UploadRecord): Promise<void> {
    await this.#write(record, 'durable');
  }

  /** The upload has ended and left nothing. It never fails. */
  async remove(): Promise<void> {
    this.#hasEnded = true;
    this.#options.released.delete(this);
    try {
      await rm(this.#path, { force: true });
    } catch (error) {
      this.#options.logger.warn({ err: error }, 'An entry of the journal of uploads could not be removed');
    }
  }

  [Symbol.dispose](): void {
    if (this.#hasEnded) return;
    this.#options.released.add(this);
    this.#options.changes.announce();
  }

  async #write(record: UploadRecord, mode: 'fast' | 'durable'): Promise<void> {
    this.#record = record;
    try {
      await writeSmallFile(this.#path, JSON.stringify(record), mode);
    } catch (error) {
      this.#options.logger.warn({ err: error }, 'An upload goes on without its entry in the journal');
    }
  }
}
