import assert from 'node:assert/strict';
import { createCipheriv, randomBytes } from 'node:crypto';
import { mkdtemp, open, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { EnvelopeReader } from '../../../src/security/envelope-reader.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { releaseChunk } from '../../../src/files/release-chunk.ts';

const KEY = Buffer.alloc(32, 'k');
const BLOCK = 16;
/** What is decrypted at once, and what is read at once. */
const DECRYPTED = 128 * 1024;
const READ = 512 * 1024;
const LENGTH = 2 * READ + 3 * DECRYPTED + 5;

const plaintext = randomBytes(LENGTH);
let folder = '';
let file: FileHandle;
let reader: EnvelopeReader;

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-reader-'));
  await writeFile(path.join(folder, 'envelope'), encryptBuffer(plaintext, KEY));
  file = await open(path.join(folder, 'envelope'));
  reader = new EnvelopeReader(file, LENGTH, KEY);
});

after(async () => {
  await file.close();
  await rm(folder, { recursive: true, force: true });
});

/** Copies each chunk, and releases it before it asks for the next. */
async function collectReleased(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  const copies: Buffer[] = [];
  for await (const chunk of chunks) {
    copies.push(Buffer.from(chunk));
    releaseChunk(chunk);
  }
  return Buffer.concat(copies);
}

async function expectRange(start: number, end: number): Promise<void> {
  const expected = plaintext.subarray(start, end);
  assert.ok((await reader.read(start, end)).equals(expected), `read ${start} to ${end}`);
  assert.ok((await collectReleased(reader.stream(start, end))).equals(expected), `stream ${start} to ${end}`);
}

/** Positions within one byte of `around`, and within one byte of the blocks beside it. */
function near(around: number): number[] {
  return [-BLOCK - 1, -BLOCK, -BLOCK + 1, -1, 0, 1, BLOCK - 1, BLOCK, BLOCK + 1].map((offset) => around + offset);
}

describe('a range of an envelope', () => {
  it('is right for every start and end within the first four blocks', async () => {
    for (let start = 0; start <= 4 * BLOCK; start++) {
      for (let end = start; end <= 4 * BLOCK; end++) {
        assert.ok((await reader.read(start, end)).equals(plaintext.subarray(start, end)), `${start} to ${end}`);
      }
    }
  });

  it('is right for every start and end within the last three blocks', async () => {
    for (let start = LENGTH - 3 * BLOCK; start <= LENGTH; start++) {
      for (let end = start; end <= LENGTH; end++) {
        assert.ok((await reader.read(start, end)).equals(plaintext.subarray(start, end)), `${start} to ${end}`);
      }
    }
  });

  // The file has a block more in front, so that what is read and what is decrypted end at different places.
  for (const boundary of [DECRYPTED, 2 * DECRYPTED, READ - BLOCK, READ, READ + DECRYPTED, 2 * READ - BLOCK]) {
    it(`is right from and to everywhere around byte ${boundary}`, async () => {
      for (const position of near(boundary)) {
        await expectRange(0, position);
        await expectRange(position, position + 40);
        await expectRange(position - 40, position);
        await expectRange(position, position + DECRYPTED);
      }
    });

    it(`is right when it begins in mid-block and is cut by byte ${boundary} of its own`, async () => {
      for (const start of [1, 15, 16, 17, 100]) {
        for (const position of near(boundary)) await expectRange(start, start + position);
      }
    });
  }

  it('is right when it is the whole', () => expectRange(0, LENGTH));

  it('is right wherever a long one begins and ends', async () => {
    for (let round = 0; round < 60; round++) {
      const [a, b] = [randomBytes(4).readUInt32BE() % (LENGTH + 1), randomBytes(4).readUInt32BE() % (LENGTH + 1)];
      await expectRange(Math.min(a, b), Math.max(a, b));
    }
  });

  it('is empty, and costs no read, when it ends where it begins', async () => {
    const closed = await open(path.join(folder, 'envelope'));
    await closed.close();
    const unread = new EnvelopeReader(closed, LENGTH, KEY);
    for (const position of [0, 1, 16, LENGTH]) {
      assert.deepEqual(await Array.fromAsync(unread.stream(position, position)), []);
      assert.equal((await unread.read(position, position)).length, 0);
    }
  });

  it('is refused beyond the plaintext and backwards, with both and the length named', async () => {
    const wrong = [
      [-1, 5],
      [-16, -1],
      [0, LENGTH + 1],
      [LENGTH, LENGTH + 1],
      [LENGTH + 1, LENGTH + 1],
      [10, 9],
      [LENGTH, 0],
      [Number.NaN, 5],
      [0, Number.NaN],
    ] as const;
    for (const [start, end] of wrong) {
      const refusal = { name: 'RangeError', message: `${start} to ${end} is not a range of ${LENGTH} bytes` };
      await assert.rejects(reader.read(start, end), refusal);
      await assert.rejects(reader.stream(start, end).next(), refusal);
    }
  });
});

describe('a stream of an envelope', () => {
  it('yields chunks of 128 KiB at most, and none that is empty', async () => {
    for (const start of [0, 1, 15, 16]) {
      for await (const chunk of reader.stream(start, LENGTH)) {
        assert.ok(chunk.length > 0 && chunk.length <= DECRYPTED, `${chunk.length} bytes`);
      }
    }
  });

  it('yields whole buffers, which can be released, wherever the range does not cut one', async () => {
    const chunks = await Array.fromAsync(reader.stream(3, LENGTH - 1));
    for (const chunk of chunks.slice(1, -1)) assert.equal(chunk.buffer.byteLength, chunk.length);
    assert.ok(chunks.length > 5);
  });

  it('yields chunks that stay as they are while the next ones come', async () => {
    const chunks = await Array.fromAsync(reader.stream(7, LENGTH));
    assert.ok(Buffer.concat(chunks).equals(plaintext.subarray(7)));
  });

  it('is right beside others over the same file, however they take turns', async () => {
    const ranges = Array.from({ length: 12 }, (_, index) => ({ start: index * 10_007, end: LENGTH - index * 9_973 }));
    const open = ranges.map(({ start, end }) => ({
      start,
      end,
      chunks: reader.stream(start, end),
      taken: [] as Buffer[],
    }));
    let left = open;
    for (let turn = 1; left.length > 0; turn++) {
      const stayed = await Promise.all(
        left.map(async (stream, index) => {
          // Some are asked more often than others.
          if ((turn + index) % 3 === 0) return true;
          const { done, value } = await stream.chunks.next();
          if (done === true) return false;
          stream.taken.push(Buffer.from(value));
          releaseChunk(value);
          return true;
        }),
      );
      left = left.filter((_, index) => stayed[index]);
    }
    for (const { start, end, taken } of open) {
      assert.ok(Buffer.concat(taken).equals(plaintext.subarray(start, end)), `${start} to ${end}`);
    }
  });

  it('may be left early, and the file is free then', async () => {
    const handle = await open(path.join(folder, 'envelope'));
    for await (const chunk of new EnvelopeReader(handle, LENGTH, KEY).stream(5, LENGTH)) {
      if (chunk.length > 0) break;
    }
    await handle.close();
  });

  for (const missing of [1, 15, 16, 17, READ, LENGTH]) {
    it(`fails with EndOfFileError when the file is ${missing} bytes shorter than was said`, async () => {
      const name = path.join(folder, `cut-${missing}`);
      const envelope = encryptBuffer(plaintext, KEY);
      // Without the padding's block, so that every byte counts.
      await writeFile(name, envelope.subarray(0, BLOCK + Math.ceil(LENGTH / BLOCK) * BLOCK - missing));
      const handle = await open(name);
      const cut = new EnvelopeReader(handle, LENGTH, KEY);
      await assert.rejects(cut.read(0, LENGTH), { name: 'EndOfFileError' });
      await handle.close();
    });
  }

  it('reads nothing but its range and one block before it', async () => {
    const name = path.join(folder, 'mostly-garbage');
    const envelope = encryptBuffer(plaintext, KEY);
    const garbage = randomBytes(envelope.length);
    // Block 101 of the plaintext lies in the file behind the IV and 101 others; block 100 is needed to decrypt it.
    envelope.copy(garbage, BLOCK * 101, BLOCK * 101, BLOCK * 103);
    await writeFile(name, garbage);
    const handle = await open(name);
    const partly = new EnvelopeReader(handle, LENGTH, KEY);
    assert.ok((await partly.read(101 * BLOCK, 102 * BLOCK)).equals(plaintext.subarray(101 * BLOCK, 102 * BLOCK)));
    assert.ok((await partly.read(101 * BLOCK + 3, 102 * BLOCK - 3)).equals(plaintext.subarray(1619, 1629)));
    await handle.close();
  });

  it('is as another implementation encrypted it, without a padding at its end', async () => {
    const name = path.join(folder, 'unpadded');
    const iv = randomBytes(BLOCK);
    const cipher = createCipheriv('aes-256-cbc', KEY, iv).setAutoPadding(false);
    await writeFile(name, Buffer.concat([iv, cipher.update(plaintext.subarray(0, 160)), cipher.final()]));
    const handle = await open(name);
    assert.ok((await new EnvelopeReader(handle, 160, KEY).read(0, 160)).equals(plaintext.subarray(0, 160)));
    await handle.close();
  });
});
