import { availableParallelism } from 'node:os';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { EndOfFileError } from '../files/file-chunks.ts';

/** A chunk of an open file. The file stays open until the answer is there. */
export interface FileChunk {
  readonly fd: number;
  /** Of its first byte in the file. */
  readonly position: number;
  /** Bytes. */
  readonly length: number;
}

export interface Decryption {
  readonly aesKey: Buffer;
  /** The block before the chunk. Where it is not given, it is read from the file. */
  readonly previousBlock: Buffer | undefined;
  /** Gets the plaintext, and comes back with the answer. It has room for the chunk. */
  readonly plaintext: ArrayBuffer;
}

/** What a thread has found. */
export interface PoolResult {
  /** Hex; undefined unless it was asked for. */
  readonly sha256: string | undefined;
  /** The block that the chunk was decrypted after, and its own last one. */
  readonly previousBlock: Buffer;
  readonly lastBlock: Buffer;
  readonly plaintext: ArrayBuffer;
}

/** To a thread. */
export interface ChunkOrder extends FileChunk {
  readonly wantsDigest: boolean;
  readonly aesKey?: Uint8Array | undefined;
  readonly previousBlock?: Uint8Array | undefined;
  readonly plaintext?: ArrayBuffer | undefined;
}

/** From a thread. */
export type ChunkReport = { readonly plaintext: ArrayBuffer | undefined } & (
  | {
      readonly outcome: 'done';
      readonly sha256: string | undefined;
      readonly previousBlock: Uint8Array;
      readonly lastBlock: Uint8Array;
    }
  | { readonly outcome: 'cut' }
  | { readonly outcome: 'failed'; readonly code: string | undefined; readonly message: string }
);

interface Job {
  readonly order: ChunkOrder;
  readonly resolve: (report: ChunkReport) => void;
  readonly reject: (error: Error) => void;
}

/** This file and the thread's are .ts in src and .js where they were built. */
const THREAD = new URL(`./chunk-thread${path.extname(import.meta.url)}`, import.meta.url);
const MAX_THREADS = 4;
/** How long a thread may have nothing to do before it ends, in ms. */
const IDLE_MS = 10_000;
/** A chunk that makes a thread die twice is given up. */
const MAX_DEATHS = 2;

export interface ChunkPoolOptions {
  readonly threads?: number;
  readonly idleMs?: number;
}

/**
 * Threads that read, digest and decrypt chunks of files, so that the event loop stays free and the work goes to all cores.
 * They start with the first chunks, and end when there are none any more. One that dies is replaced, and its chunk is done
 * by another.
 */
export class ChunkPool implements AsyncDisposable {
  readonly #size: number;
  readonly #idleMs: number;
  readonly #threads = new Set<ChunkThread>();
  readonly #waiting: (Job & { deaths: number })[] = [];
  #isClosed = false;

  constructor({ threads = Math.min(MAX_THREADS, availableParallelism()), idleMs = IDLE_MS }: ChunkPoolOptions = {}) {
    this.#size = threads;
    this.#idleMs = idleMs;
  }

  /** The most chunks that are worked on at a time. */
  get size(): number {
    return this.#size;
  }

  /** SHA-256, hex, of a chunk. @throws EndOfFileError when the file ends before; the system's error */
  async digest(chunk: FileChunk): Promise<string> {
    const report = await this.#run({ ...chunk, wantsDigest: true });
    return (report as { sha256: string }).sha256;
  }

  /** Decrypts a chunk, and digests it where that is wanted. @throws as `digest` does */
  async decrypt(
    chunk: FileChunk,
    { wantsDigest, aesKey, previousBlock, plaintext }: Decryption & { readonly wantsDigest: boolean },
  ): Promise<PoolResult> {
    const order = { ...chunk, wantsDigest, aesKey, previousBlock, plaintext };
    const report = await this.#run(order);
    return {
      sha256: report.sha256,
      previousBlock: Buffer.from(report.previousBlock),
      lastBlock: Buffer.from(report.lastBlock),
      plaintext: report.plaintext ?? new ArrayBuffer(0),
    };
  }

  async #run(order: ChunkOrder): Promise<Extract<ChunkReport, { outcome: 'done' }>> {
    const { promise, resolve, reject } = Promise.withResolvers<ChunkReport>();
    this.#waiting.push({ order, resolve, reject, deaths: 0 });
    this.#serve();
    const report = await promise;
    if (report.outcome === 'done') return report;
    if (report.outcome === 'cut') throw new EndOfFileError();
    throw Object.assign(new Error(report.message), { code: report.code });
  }

  #serve(): void {
    while (this.#waiting.length > 0) {
      const thread = this.#threads.values().find(({ isFree }) => isFree) ?? this.#start();
      if (thread === undefined) return;
      const job = this.#waiting.shift();
      if (job !== undefined) thread.begin(job);
    }
  }

  #start(): ChunkThread | undefined {
    if (this.#isClosed) throw new Error('the pool of chunks is closed');
    if (this.#threads.size >= this.#size) return undefined;
    const thread = new ChunkThread({
      idleMs: this.#idleMs,
      onFree: () => this.#serve(),
      onEnd: (job) => {
        this.#threads.delete(thread);
        if (job !== undefined) this.#retry(job);
      },
    });
    this.#threads.add(thread);
    return thread;
  }

  /** The memory that a dead thread had is gone, and new memory takes its place. */
  #retry(job: Job & { deaths: number }): void {
    const deaths = job.deaths + 1;
    if (deaths >= MAX_DEATHS || this.#isClosed) {
      job.reject(new Error('a thread that decrypts chunks has died'));
      return;
    }
    const { plaintext, length } = job.order;
    const order = { ...job.order, ...(plaintext !== undefined && { plaintext: new ArrayBuffer(length) }) };
    this.#waiting.unshift({ ...job, order, deaths });
    this.#serve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#threads].map((thread) => thread.terminate()));
  }
}

interface ChunkThreadOptions {
  readonly idleMs: number;
  readonly onFree: () => void;
  /** Called with the job that was not finished, if there is one. */
  readonly onEnd: (job: (Job & { deaths: number }) | undefined) => void;
}

class ChunkThread {
  readonly #worker: Worker;
  readonly #options: ChunkThreadOptions;
  #job: (Job & { deaths: number }) | undefined;
  #hasEnded = false;
  #idle: NodeJS.Timeout | undefined;

  constructor(options: ChunkThreadOptions) {
    this.#options = options;
    this.#worker = new Worker(THREAD, { resourceLimits: { maxOldGenerationSizeMb: 32 } });
    this.#worker.unref();
    this.#worker.on('message', (report: ChunkReport) => this.#end(report));
    this.#worker.once('error', () => this.#die());
    this.#worker.once('exit', () => this.#die());
  }

  get isFree(): boolean {
    return this.#job === undefined && !this.#hasEnded;
  }

  begin(job: Job & { deaths: number }): void {
    clearTimeout(this.#idle);
    this.#job = job;
    this.#worker.ref(); // The process must not end before the answer.
    const { plaintext } = job.order;
    this.#worker.postMessage(job.order, plaintext === undefined ? [] : [plaintext]);
  }

  async terminate(): Promise<void> {
    clearTimeout(this.#idle);
    await this.#worker.terminate();
  }

  #end(report: ChunkReport): void {
    const job = this.#job;
    this.#job = undefined;
    this.#worker.unref();
    job?.resolve(report);
    this.#idle = setTimeout(() => void this.terminate(), this.#options.idleMs).unref();
    this.#options.onFree();
  }

  #die(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    clearTimeout(this.#idle);
    this.#options.onEnd(this.#job);
  }
}
