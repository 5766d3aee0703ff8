import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, open, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { readFileChunks } from '../../../src/files/file-chunks.ts';
import { SlabPool } from '../../../src/files/slab-pool.ts';

const CHUNK = 1000;

let folder = '';
let filePath = '';
const handles: FileHandle[] = [];

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-chunks-'));
  filePath = path.join(folder, 'file');
});

afterEach(async () => {
  for (const handle of handles.splice(0)) await handle.close();
  await rm(folder, { recursive: true, force: true });
});

async function openFile(content: Buffer): Promise<FileHandle> {
  await writeFile(filePath, content);
  const handle = await open(filePath, 'r+');
  handles.push(handle);
  return handle;
}

/** Copies, since a chunk is valid only until the next is asked for. */
async function collect(chunks: AsyncIterable<Buffer>): Promise<Buffer[]> {
  const copies: Buffer[] = [];
  for await (const chunk of chunks) copies.push(Buffer.from(chunk));
  return copies;
}

describe('readFileChunks', () => {
  for (const length of [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1, 5 * CHUNK + 7]) {
    it(`reads exactly ${length} bytes in chunks of ${CHUNK}`, async () => {
      const content = randomBytes(length);
      const chunks = await collect(readFileChunks(await openFile(content), 0, length, CHUNK));
      assert.ok(Buffer.concat(chunks).equals(content));
      assert.equal(chunks.length, Math.ceil(length / CHUNK));
      assert.ok(chunks.slice(0, -1).every((chunk) => chunk.length === CHUNK));
    });

    it(`reads the ${length} bytes in the middle of a longer file`, async () => {
      const content = randomBytes(length + 300);
      const chunks = await collect(readFileChunks(await openFile(content), 123, 123 + length, CHUNK));
      assert.ok(Buffer.concat(chunks).equals(content.subarray(123, 123 + length)));
    });
  }

  it('keeps a chunk valid until the next is asked for, though the next is being read', async () => {
    const content = randomBytes(10 * CHUNK);
    const file = await openFile(content);
    let position = 0;
    for await (const chunk of readFileChunks(file, 0, content.length, CHUNK)) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      assert.ok(chunk.equals(content.subarray(position, position + chunk.length)), `at ${position}`);
      position += chunk.length;
    }
  });

  it('holds no more than two buffers, however long the file is', async () => {
    const file = await openFile(randomBytes(10 * CHUNK));
    const buffers = new Set<ArrayBufferLike>();
    for await (const chunk of readFileChunks(file, 0, 10 * CHUNK, CHUNK)) buffers.add(chunk.buffer);
    assert.equal(buffers.size, 2);
  });

  it('gives the memory of both back at the end, not by the garbage collector', async () => {
    const file = await openFile(randomBytes(10 * CHUNK));
    for (const count of [1, 10]) {
      const chunks: Buffer[] = [];
      for await (const chunk of readFileChunks(file, 0, 10 * CHUNK, CHUNK)) if (chunks.push(chunk) === count) break;
      assert.deepEqual(new Set(chunks.map(({ buffer }) => buffer.byteLength)), new Set([0]));
    }
  });

  it('takes both buffers from a pool that it is given, and gives them back', async () => {
    const content = randomBytes(10 * CHUNK);
    const file = await openFile(content);
    for (const count of [1, 10]) {
      const pool = new SlabPool(CHUNK);
      const buffers = { take: () => pool.take() };
      const memory = new Set<ArrayBufferLike>();
      let chunks = 0;
      for await (const chunk of readFileChunks(file, 0, content.length, CHUNK, { buffers })) {
        assert.ok(chunk.equals(content.subarray(chunks * CHUNK, (chunks + 1) * CHUNK)));
        assert.ok(pool.length > 0, 'the chunk is not of the pool');
        memory.add(chunk.buffer);
        if (++chunks === count) break;
      }
      assert.equal(memory.size, 1);
      assert.equal(pool.length, 0, 'a buffer was not given back');
    }
  });

  for (const there of [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK - 1]) {
    it(`fails with EndOfFileError when the file ends after ${there} of ${3 * CHUNK} bytes`, async () => {
      const content = randomBytes(there);
      const file = await openFile(content);
      const chunks: Buffer[] = [];
      await assert.rejects(
        async () => {
          for await (const chunk of readFileChunks(file, 0, 3 * CHUNK, CHUNK)) chunks.push(Buffer.from(chunk));
        },
        { name: 'EndOfFileError' },
      );
      // Whole chunks only: never one that is filled up with something else.
      assert.ok(Buffer.concat(chunks).equals(content.subarray(0, CHUNK * Math.floor(there / CHUNK))));
    });
  }

  it('fails with EndOfFileError when the file is cut while it is read', async () => {
    const file = await openFile(randomBytes(5 * CHUNK));
    const chunks = readFileChunks(file, 0, 5 * CHUNK, CHUNK);
    await chunks.next();
    await file.truncate(2 * CHUNK);
    await assert.rejects(collect(chunks), { name: 'EndOfFileError' });
  });

  it('may be left early, and then reads no more: the file may be closed', async () => {
    const file = await openFile(randomBytes(100 * CHUNK));
    for (let round = 0; round < 20; round++) {
      let isReading = false;
      const observed = observe(file, (reading) => {
        isReading = reading;
      });
      for await (const chunk of readFileChunks(observed, 0, 100 * CHUNK, CHUNK)) if (chunk.length > 0) break;
      assert.ok(!isReading, 'a read was under way');
    }
  });

  it('may be left early when the next chunk failed already, without a failure that nobody handles', async () => {
    const file = await openFile(randomBytes(CHUNK));
    for await (const chunk of readFileChunks(file, 0, 2 * CHUNK, CHUNK)) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      if (chunk.length > 0) break;
    }
  });

  it('reads no byte of a growing file before it is there', async () => {
    const content = randomBytes(3 * CHUNK - 10);
    const file = await openFile(Buffer.alloc(0));
    let written = 0;
    const asked: number[] = [];
    const reach = async (position: number) => {
      asked.push(position);
      while (written < position) {
        await new Promise((resolve) => setTimeout(resolve, 2));
        const { bytesWritten } = await file.write(content.subarray(written, written + 400), 0, undefined, written);
        written += bytesWritten;
      }
    };
    const chunks = await collect(readFileChunks(file, 0, content.length, CHUNK, { growth: { reach } }));
    assert.ok(Buffer.concat(chunks).equals(content));
    assert.deepEqual(asked, [CHUNK, 2 * CHUNK, content.length]);
  });

  it('asks for no byte behind the end, and for none twice', async () => {
    const file = await openFile(randomBytes(3 * CHUNK));
    const asked: number[] = [];
    const reach = (position: number) => {
      asked.push(position);
      return Promise.resolve();
    };
    await collect(readFileChunks(file, CHUNK, 3 * CHUNK, CHUNK, { growth: { reach } }));
    assert.deepEqual(asked, [2 * CHUNK, 3 * CHUNK]);
  });

  it('yields what is available before it passes on why there is no more', async () => {
    const content = randomBytes(3 * CHUNK);
    const file = await openFile(content);
    const reach = (position: number) =>
      position > 2 * CHUNK ? Promise.reject(new Error('the CDN failed')) : Promise.resolve();
    const chunks: Buffer[] = [];
    await assert.rejects(async () => {
      for await (const chunk of readFileChunks(file, 0, content.length, CHUNK, { growth: { reach } })) {
        chunks.push(Buffer.from(chunk));
      }
    }, /the CDN failed/);
    assert.ok(Buffer.concat(chunks).equals(content.subarray(0, 2 * CHUNK)));
  });
});

/** The same file; `onChange` hears whether a read is under way. */
function observe(file: FileHandle, onChange: (isReading: boolean) => void): FileHandle {
  return new Proxy(file, {
    get(target, name) {
      if (name !== 'read') return Reflect.get(target, name) as unknown;
      return async (buffer: Buffer, offset: number, length: number, position: number) => {
        onChange(true);
        try {
          return await target.read(buffer, offset, length, position);
        } finally {
          onChange(false);
        }
      };
    },
  });
}
