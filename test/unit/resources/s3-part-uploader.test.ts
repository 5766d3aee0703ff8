import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { beforeEach, describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { NEVER } from '../../../src/async/abort.ts';
import { ByteBudget } from '../../../src/async/byte-budget.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { PART_LENGTH, S3PartUploader } from '../../../src/resources/s3-part-uploader.ts';
import { FakeUpload, FakeUploadCdn } from '../../support/upload-lab.ts';

/** Six parts and a bit. */
const CONTENT = randomBytes(6 * PART_LENGTH + 1_000);

/** A file in memory. */
class MemoryFile {
  readonly bytes = Buffer.alloc(CONTENT.length);
  beforeWrite: (position: number) => Promise<void> = () => Promise.resolve();

  async write(bytes: Buffer, position: number): Promise<void> {
    await this.beforeWrite(position);
    bytes.copy(this.bytes, position);
  }
}

let upload: FakeUpload;
let file: MemoryFile;
let parts: S3PartUploader;

let memory: ByteBudget;

function uploaderOf(sender: Pick<FakeUpload, 'sendPart'>, signal = NEVER): S3PartUploader {
  return new S3PartUploader(sender, file, { logger: createLogger({ level: 'silent' }), memory, signal });
}

beforeEach(() => {
  upload = new FakeUpload('models/m.big', 'ab'.repeat(32), new FakeUploadCdn());
  file = new MemoryFile();
  memory = new ByteBudget(8 * PART_LENGTH);
  parts = uploaderOf(upload);
});

async function pushAll(): Promise<void> {
  for (let start = 0; start < CONTENT.length; start += 3_000_000) {
    await parts.push(Buffer.from(CONTENT.subarray(start, start + 3_000_000)));
  }
  await parts.end();
}

describe('the parts of an upload', () => {
  it('have all bytes in order, on the CDN and in the file', async () => {
    await pushAll();
    assert.equal(parts.length, CONTENT.length);
    assert.deepEqual(
      [...upload.bodies].map(([number, { length }]) => [number, length]).toSorted(([a = 0], [b = 0]) => a - b),
      [1, 2, 3, 4, 5, 6, 7].map((number) => [number, number === 7 ? 1_000 : PART_LENGTH]),
    );
    assert.ok(upload.content.equals(CONTENT));
    assert.ok(parts.isFileComplete && file.bytes.equals(CONTENT));
  });

  it('are sent four at a time: a fifth is filled, and waits', async () => {
    let present = 0;
    let most = 0;
    const gate = Promise.withResolvers<undefined>();
    const fourth = Promise.withResolvers<undefined>();
    upload.beforePart = async (number) => {
      most = Math.max(most, ++present);
      if (number === 4) fourth.resolve(undefined);
      await gate.promise;
      present--;
    };
    const pushing = pushAll();
    await fourth.promise;
    gate.resolve(undefined);
    await pushing;
    assert.equal(most, 4);
  });

  it('fail with the first failure of a part, at the next push', async () => {
    upload.beforePart = (number) => (number === 2 ? Promise.reject(new Error('part 2 failed')) : Promise.resolve());
    await assert.rejects(pushAll(), /part 2 failed/);
    assert.ok(!upload.bodies.has(7));
  });

  it('fail at the end when the last one fails', async () => {
    upload.beforePart = (number) => (number === 7 ? Promise.reject(new Error('part 7 failed')) : Promise.resolve());
    await assert.rejects(pushAll(), /part 7 failed/);
  });

  it('go on without the file when that fails', async () => {
    file.beforeWrite = (position) =>
      position === PART_LENGTH ? Promise.reject(new Error('the disk is full')) : Promise.resolve();
    await pushAll();
    assert.ok(!parts.isFileComplete);
    assert.ok(upload.content.equals(CONTENT));
  });

  it('are settled, the write to the file too, when the disposal ends', async () => {
    const written = Promise.withResolvers<undefined>();
    let isWriting = false;
    upload.beforePart = () => Promise.reject(new Error('the CDN failed'));
    file.beforeWrite = async () => {
      isWriting = true;
      await written.promise;
      isWriting = false;
    };
    const failing = async () => {
      await using _parts = parts;
      await parts.push(CONTENT.subarray(0, PART_LENGTH));
      setImmediate(() => written.resolve(undefined));
    };
    await failing();
    assert.ok(!isWriting, 'the file is closed after this, under a running write');
    await assert.rejects(parts.end(), /the CDN failed/);
  });
});

describe('the memory of parts', () => {
  it('is within the budget, in which several uploads take turns, and all comes back', async () => {
    memory = new ByteBudget(2 * PART_LENGTH);
    let most = 0;
    const uploads = Array.from({ length: 4 }, () => {
      const sender = new FakeUpload('models/m.big', 'ab'.repeat(32), new FakeUploadCdn());
      sender.beforePart = async () => {
        most = Math.max(most, memory.held);
        await turn();
      };
      return sender;
    });
    await Promise.all(
      uploads.map(async (sender) => {
        parts = uploaderOf(sender);
        const uploader = parts;
        for (let start = 0; start < CONTENT.length; start += 3_000_000) {
          await uploader.push(CONTENT.subarray(start, start + 3_000_000));
        }
        await uploader.end();
        assert.ok(sender.content.equals(CONTENT));
      }),
    );
    assert.deepEqual([most, memory.held], [2 * PART_LENGTH, 0]);
  });

  it('is waited for before a byte is taken, no longer than the signal allows', async () => {
    memory = new ByteBudget(PART_LENGTH);
    using _other = await memory.acquire(1, NEVER);
    const abort = new AbortController();
    await using uploader = uploaderOf(upload, abort.signal);
    const pushing = uploader.push(Buffer.alloc(10));
    await turn();
    assert.equal(uploader.length, 0);
    const reason = new Error('the client has left');
    abort.abort(reason);
    await assert.rejects(pushing, reason);
  });

  it('comes back when a part fails, and when the upload is left half-way', async () => {
    upload.beforePart = () => Promise.reject(new Error('refused'));
    {
      await using uploader = uploaderOf(upload);
      await uploader.push(CONTENT.subarray(0, PART_LENGTH + 10));
      assert.ok(memory.held > 0);
    }
    assert.equal(memory.held, 0);
  });

  it('is freed at once, not by the garbage collector', async () => {
    const before = process.memoryUsage().arrayBuffers;
    const uploader = uploaderOf({ sendPart: () => Promise.resolve() });
    for (let part = 0; part < 8; part++) await uploader.push(CONTENT.subarray(0, PART_LENGTH));
    await uploader.end();
    assert.ok(process.memoryUsage().arrayBuffers - before < PART_LENGTH);
  });
});
