import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { NEVER } from '../../../src/async/abort.ts';
import { DraftFile } from '../../../src/files/draft-file.ts';
import { WorkMemory } from '../../../src/files/work-memory.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { Parallelism } from '../../../src/net/parallelism.ts';
import { S3PartUploader } from '../../../src/resources/s3-part-uploader.ts';
import { FakeUpload, FakeUploadCdn } from '../../support/upload-lab.ts';

/** Of these tests. */
const PART_LENGTH = 1024 * 1024;
/** Six parts and a bit. */
const CONTENT = randomBytes(6 * PART_LENGTH + 1_000);

/** A file whose writes can be held up. */
class HeldUpFile implements Pick<DraftFile, 'handle' | 'startSync' | 'write'> {
  readonly draft: DraftFile;
  syncs = 0;
  beforeWrite: (position: number) => Promise<void> = () => Promise.resolve();

  constructor(draft: DraftFile) {
    this.draft = draft;
  }

  get handle(): FileHandle {
    return this.draft.handle;
  }

  async write(bytes: Buffer, position: number): Promise<void> {
    await this.beforeWrite(position);
    await this.draft.write(bytes, position);
  }

  startSync(): void {
    this.syncs++;
    this.draft.startSync();
  }

  async hasAll(): Promise<boolean> {
    const bytes = Buffer.alloc(CONTENT.length);
    await this.handle.read(bytes, 0, bytes.length, 0);
    return bytes.equals(CONTENT);
  }
}

let upload: FakeUpload;
let folder: string;
let file: HeldUpFile;
let parts: S3PartUploader;

let memory: WorkMemory;
let parallelism: Parallelism;

/** Of a turn, in ms. */
const TURN_MS = 10;

function uploaderOf(sender: Pick<FakeUpload, 'sendPart'>, signal = NEVER): S3PartUploader {
  const logger = createLogger({ level: 'silent' });
  return new S3PartUploader(sender, file, {
    logger,
    memory,
    parallelism,
    signal,
    turnMs: TURN_MS,
    partLength: PART_LENGTH,
  });
}

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-parts-'));
});
after(async () => {
  await rm(folder, { recursive: true });
});
afterEach(async () => {
  await file.draft[Symbol.asyncDispose]();
});
beforeEach(async () => {
  upload = new FakeUpload('models/m.big', 'ab'.repeat(32), new FakeUploadCdn());
  file = new HeldUpFile(await DraftFile.create(path.join(folder, 'draft')));
  memory = new WorkMemory(8 * PART_LENGTH);
  parallelism = new Parallelism();
  parts = uploaderOf(upload);
});

async function pushAll(): Promise<void> {
  for (let start = 0; start < CONTENT.length; start += 375_000) {
    await parts.push(Buffer.from(CONTENT.subarray(start, start + 375_000)));
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
    assert.ok(parts.isFileComplete && (await file.hasAll()));
    assert.equal(file.syncs, 7, 'the disk gets each part while others are sent');
  });

  it('are all but one sent when the rest was sent', async () => {
    const gates = Array.from({ length: 7 }, () => Promise.withResolvers<undefined>());
    upload.beforePart = (number) => gates[number - 1]?.promise ?? assert.fail('there are seven parts');
    for (const gate of gates.slice(0, 3)) gate.resolve(undefined);
    await parts.push(CONTENT);
    let isLast = false;
    const sent = parts.sendRest().then(() => (isLast = true));
    await turn();
    assert.ok(!isLast);
    for (const gate of gates.slice(3, 6)) gate.resolve(undefined);
    await sent;
    assert.ok(!upload.bodies.has(7));
    gates[6]?.resolve(undefined);
    await parts.end();
    assert.ok(upload.content.equals(CONTENT));
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

  it('are sent five at a time after two rounds', { timeout: 10_000 }, async () => {
    const five = Promise.withResolvers<undefined>();
    let held = 0;
    const sendPart = async (number: number) => {
      if (number <= 8) return;
      held++;
      if (held === 5) five.resolve(undefined);
      await five.promise;
    };
    parts = uploaderOf({ sendPart });
    for (let number = 1; number <= 13; number++) await parts.push(CONTENT.subarray(0, PART_LENGTH));
    await parts.end();
    assert.equal(held, 5);
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
    memory = new WorkMemory(2 * PART_LENGTH);
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
        for (let start = 0; start < CONTENT.length; start += 375_000) {
          await uploader.push(CONTENT.subarray(start, start + 375_000));
        }
        await uploader.end();
        assert.ok(sender.content.equals(CONTENT));
      }),
    );
    assert.deepEqual([most, memory.held], [2 * PART_LENGTH, 0]);
  });

  it('is waited for before a byte is taken, no longer than the signal allows', async () => {
    memory = new WorkMemory(PART_LENGTH);
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

  it('of a slow client goes to another who waits, and none of its bytes is lost', async () => {
    memory = new WorkMemory(PART_LENGTH);
    await using slow = uploaderOf(upload);
    for (let start = 0; start < CONTENT.length; start += 375_000) {
      await slow.push(CONTENT.subarray(start, start + 375_000));
      // It comes although the client sends nothing more, and goes back before the client may go on.
      using _other = await memory.acquire(PART_LENGTH, NEVER);
    }
    await slow.end();
    assert.ok(upload.content.equals(CONTENT));
    assert.ok(slow.isFileComplete && (await file.hasAll()));
    assert.equal(memory.held, 0);
  });

  it('of a slow client stays while no other waits for it', async () => {
    await parts.push(CONTENT.subarray(0, 10));
    let writes = 0;
    file.beforeWrite = () => {
      writes++;
      return Promise.resolve();
    };
    await sleep(5 * TURN_MS);
    assert.deepEqual([writes, memory.held], [0, PART_LENGTH]);
    await parts[Symbol.asyncDispose]();
    assert.equal(memory.held, 0);
  });

  it('of a slow client stays where the disk is full, and the upload goes on', async () => {
    memory = new WorkMemory(PART_LENGTH);
    await using slow = uploaderOf(upload);
    await slow.push(CONTENT.subarray(0, 10));
    const tried = Promise.withResolvers<undefined>();
    file.beforeWrite = () => {
      tried.resolve(undefined);
      return Promise.reject(new Error('the disk is full'));
    };
    const other = memory.acquire(PART_LENGTH, NEVER);
    await tried.promise;
    await slow.push(CONTENT.subarray(10, 20));
    await slow.end();
    using _other = await other;
    assert.ok(upload.content.equals(CONTENT.subarray(0, 20)));
  });
});
