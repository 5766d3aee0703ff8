import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, open, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import { sha256 } from '../../../lab/sha256.ts';
import { eventually } from '../../../lab/waiting.ts';
import { EndOfFileError } from '../../../src/files/file-chunks.ts';
import { ChunkPool } from '../../../src/resources/chunk-pool.ts';
import { decryptBlocks } from '../../../src/security/envelope-cipher.ts';

const CONTENT = randomBytes(1_000_000);
const KEY = randomBytes(32);
const LENGTH = 160_000;

let folder = '';
let file: FileHandle;

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-pool-'));
  await writeFile(path.join(folder, 'file'), CONTENT);
  file = await open(path.join(folder, 'file'));
});

after(async () => {
  await file.close();
  await rm(folder, { recursive: true });
});

const chunkAt = (position: number, length = LENGTH) => ({ fd: file.fd, position, length });

/** The threads of this process, by what Linux calls them. */
const workers: Worker[] = [];
const { prototype } = Worker as unknown as { prototype: { postMessage: (...args: unknown[]) => void } };

describe('a pool of threads', () => {
  it('digests chunks, as many at a time as there are', async () => {
    await using pool = new ChunkPool({ threads: 2 });
    const positions = [0, 1, 16, 500_000, CONTENT.length - LENGTH];
    const digests = await Promise.all(positions.map((position) => pool.digest(chunkAt(position))));
    assert.deepEqual(
      digests,
      positions.map((position) => sha256(CONTENT.subarray(position, position + LENGTH))),
    );
  });

  it('decrypts a chunk after the block before it, and tells both last blocks', async () => {
    await using pool = new ChunkPool({ threads: 1 });
    const plaintext = new ArrayBuffer(LENGTH);
    const job = { aesKey: KEY, previousBlock: undefined, wantsDigest: true, plaintext };
    const chunk = await pool.decrypt(chunkAt(160_000), job);
    const stored = CONTENT.subarray(160_000, 160_000 + LENGTH);
    const iv = CONTENT.subarray(160_000 - 16, 160_000);
    assert.equal(plaintext.byteLength, 0, 'the memory was copied');
    assert.ok(Buffer.from(chunk.plaintext).equals(decryptBlocks(stored, KEY, iv)));
    assert.ok(chunk.previousBlock.equals(iv));
    assert.ok(chunk.lastBlock.equals(stored.subarray(-16)));
    assert.equal(chunk.sha256, sha256(stored));
  });

  it('decrypts after another block when it is told to, and does not digest what need not be', async () => {
    await using pool = new ChunkPool({ threads: 1 });
    const previousBlock = randomBytes(16);
    const job = { aesKey: KEY, previousBlock, wantsDigest: false, plaintext: new ArrayBuffer(LENGTH) };
    const chunk = await pool.decrypt(chunkAt(0), job);
    assert.ok(Buffer.from(chunk.plaintext).equals(decryptBlocks(CONTENT.subarray(0, LENGTH), KEY, previousBlock)));
    assert.ok(chunk.previousBlock.equals(previousBlock));
    assert.equal(chunk.sha256, undefined);
  });

  it('tells when the file ends before, or can not be read, and goes on', async () => {
    await using pool = new ChunkPool({ threads: 1 });
    await assert.rejects(pool.digest(chunkAt(CONTENT.length - 5, 10)), EndOfFileError);
    await assert.rejects(pool.digest({ fd: 12_345, position: 0, length: 5 }), { code: 'EBADF' });
    assert.equal(await pool.digest(chunkAt(0, 5)), sha256(CONTENT.subarray(0, 5)));
  });

  it('does a chunk again whose thread dies, and gives it up when the next one dies too', async () => {
    const post = prototype.postMessage;
    /** How many threads are to die before they get their chunk. */
    let deaths = 1;
    prototype.postMessage = function (this: Worker, ...args: unknown[]) {
      if (deaths-- > 0) void this.terminate();
      else post.apply(this, args);
    };
    try {
      await using pool = new ChunkPool({ threads: 1 });
      const plaintext = new ArrayBuffer(LENGTH);
      const job = { aesKey: KEY, previousBlock: randomBytes(16), wantsDigest: true, plaintext };
      assert.equal((await pool.decrypt(chunkAt(0), job)).sha256, sha256(CONTENT.subarray(0, LENGTH)));
      deaths = 2;
      await assert.rejects(pool.digest(chunkAt(0)), /has died/);
      assert.equal(await pool.digest(chunkAt(0, 5)), sha256(CONTENT.subarray(0, 5)));
    } finally {
      prototype.postMessage = post;
    }
  });

  it('has no thread left when it had nothing to do for a while', async () => {
    let exits = 0;
    const post = prototype.postMessage;
    prototype.postMessage = function (this: Worker, ...args: unknown[]) {
      workers.push(this);
      this.once('exit', () => exits++);
      post.apply(this, args);
    };
    try {
      await using pool = new ChunkPool({ threads: 1, idleMs: 20 });
      await pool.digest(chunkAt(0, 5));
      await eventually(() => exits === 1);
      assert.equal(await pool.digest(chunkAt(0, 5)), sha256(CONTENT.subarray(0, 5)));
    } finally {
      prototype.postMessage = post;
    }
  });
});
