import { createDecipheriv, createHash } from 'node:crypto';
import { readSync } from 'node:fs';
import { parentPort, type MessagePort } from 'node:worker_threads';
import type { ChunkOrder, ChunkReport } from './chunk-pool.ts';

/**
 * A thread of the pool: it reads a chunk of a file, digests it, and decrypts it into the memory that came with the order.
 * It works on one order at a time, without waiting for anything but the disk.
 */

const BLOCK_LENGTH = 16;
/** Bytes that are decrypted at once: what OpenSSL writes is then still in the cache of the core when it is copied. */
const PIECE_LENGTH = 128 * 1024;

/** What a thread keeps from one order to the next. */
interface Workspace {
  /** The memory that chunks are read into, with the block before the chunk. It grows to the longest one. */
  stored: Buffer;
}

function work(order: ChunkOrder, workspace: Workspace): ChunkReport {
  const { fd, position, length, previousBlock, plaintext } = order;
  // The first chunk of a file has no block before it there: it comes with the order, or is not needed.
  const lead = position >= BLOCK_LENGTH ? BLOCK_LENGTH : 0;
  if (workspace.stored.length < length + lead) workspace.stored = Buffer.allocUnsafeSlow(length + lead);
  const bytes = workspace.stored.subarray(0, length + lead);
  if (!fill(bytes, fd, position - lead)) return { outcome: 'cut', plaintext };
  const chunk = bytes.subarray(lead);
  const iv = previousBlock ?? Buffer.from(bytes.subarray(0, lead));
  if (plaintext !== undefined && order.aesKey !== undefined)
    decrypt(chunk, order.aesKey, iv, new Uint8Array(plaintext));
  return {
    outcome: 'done',
    sha256: order.wantsDigest ? createHash('sha256').update(chunk).digest('hex') : undefined,
    previousBlock: iv,
    lastBlock: Buffer.from(chunk.subarray(-BLOCK_LENGTH)),
    plaintext,
  };
}

/** False when the file ends before. */
function fill(bytes: Buffer, fd: number, position: number): boolean {
  for (let filled = 0; filled < bytes.length;) {
    const count = readSync(fd, bytes, filled, bytes.length - filled, position + filled);
    if (count === 0) return false;
    filled += count;
  }
  return true;
}

function decrypt(chunk: Buffer, aesKey: Uint8Array, iv: Uint8Array, plaintext: Uint8Array): void {
  const decipher = createDecipheriv('aes-256-cbc', aesKey, iv).setAutoPadding(false);
  for (let start = 0; start < chunk.length; start += PIECE_LENGTH) {
    const piece = decipher.update(chunk.subarray(start, start + PIECE_LENGTH));
    plaintext.set(piece, start);
    // At once: the garbage collection would come too late for all of them.
    if (piece.buffer.byteLength === piece.length) piece.buffer.transfer(0);
  }
}

function answer(port: MessagePort, order: ChunkOrder, workspace: Workspace): void {
  let report: ChunkReport;
  try {
    report = work(order, workspace);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    report = { outcome: 'failed', code, message, plaintext: order.plaintext };
  }
  port.postMessage(report, report.plaintext === undefined ? [] : [report.plaintext]);
}

if (parentPort !== null) {
  const port = parentPort;
  const workspace = { stored: Buffer.alloc(0) };
  port.on('message', (order: ChunkOrder) => answer(port, order, workspace));
}
