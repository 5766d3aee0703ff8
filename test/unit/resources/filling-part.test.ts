import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, open, rm, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../../../lab/waiting.ts';
import { NEVER } from '../../../src/async/abort.ts';
import { WorkMemory } from '../../../src/files/work-memory.ts';
import { FillingPart, PART_LENGTH } from '../../../src/resources/filling-part.ts';

/** Of a turn, in ms. */
const TURN_MS = 10;
const POSITION = 4096;
const FIRST = randomBytes(100_000);
const SECOND = randomBytes(50_000);

let folder = '';
let handle: FileHandle;
let memory: WorkMemory;
/** Number of writes that began. */
let writes = 0;
/** What a write waits for before it takes its bytes. */
let gate: PromiseWithResolvers<void>;

const file = () => ({
  handle,
  write: async (bytes: Buffer, position: number) => {
    writes++;
    await gate.promise;
    await handle.write(bytes, 0, bytes.length, position);
  },
});

const makePart = (hasFile = true) =>
  new FillingPart(
    { file: hasFile ? file() : undefined, position: POSITION },
    { memory, signal: NEVER, turnMs: TURN_MS },
  );

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-part-'));
  handle = await open(path.join(folder, 'draft'), 'w+');
  memory = new WorkMemory(PART_LENGTH); // For one part at a time.
  writes = 0;
  gate = Promise.withResolvers();
});

afterEach(async () => {
  await handle.close().catch(() => undefined);
  await rm(folder, { recursive: true });
});

async function assertWhole(part: FillingPart): Promise<void> {
  const { bytes, sha256 } = await part.end();
  const expected = Buffer.concat([FIRST, SECOND]);
  assert.ok(bytes.equals(expected));
  assert.equal(sha256, createHash('sha256').update(expected).digest('hex'));
}

describe('a part that is filled while others wait for memory', () => {
  it('is set aside, and takes its next bytes when it has memory again', async () => {
    await using part = makePart();
    await part.push(FIRST);
    gate.resolve();
    const other = await memory.acquire(PART_LENGTH, NEVER);
    assert.equal(writes, 1);
    const pushing = part.push(SECOND);
    other[Symbol.dispose]();
    assert.equal(await pushing, SECOND.length);
    await assertWhole(part);
  });

  it('takes no byte while it is being set aside', async () => {
    await using part = makePart();
    await part.push(FIRST);
    const acquiring = memory.acquire(PART_LENGTH, NEVER);
    await eventually(() => writes === 1);
    let isPushed = false;
    const pushing = part.push(SECOND).then(() => (isPushed = true));
    await sleep(2 * TURN_MS);
    assert.equal(isPushed, false);
    gate.resolve();
    (await acquiring)[Symbol.dispose]();
    await pushing;
    await assertWhole(part);
  });

  it('keeps its memory from its end to its disposal', async () => {
    gate.resolve();
    const part = makePart();
    await part.push(FIRST);
    await part.push(SECOND);
    const ended = await part.end();
    const acquiring = memory.acquire(PART_LENGTH, NEVER);
    await sleep(5 * TURN_MS);
    assert.equal(writes, 0);
    assert.ok(ended.bytes.equals(Buffer.concat([FIRST, SECOND])));
    await part[Symbol.asyncDispose]();
    (await acquiring)[Symbol.dispose]();
    assert.equal(memory.held, 0);
  });

  it('gives its memory back only when the write is over that its disposal met', async () => {
    const part = makePart();
    await part.push(FIRST);
    let isAcquired = false;
    const acquiring = memory.acquire(PART_LENGTH, NEVER).finally(() => (isAcquired = true));
    await eventually(() => writes === 1);
    const disposing = part[Symbol.asyncDispose]();
    await sleep(2 * TURN_MS);
    assert.equal(isAcquired, false);
    gate.resolve();
    await disposing;
    (await acquiring)[Symbol.dispose]();
    assert.equal(memory.held, 0);
  });

  it('keeps its memory where there is no file, or the file can not be written', async () => {
    gate.promise.catch(() => undefined);
    gate.reject(new Error('the disk is full'));
    for (const hasFile of [false, true]) {
      const part = makePart(hasFile);
      await part.push(FIRST);
      const acquiring = memory.acquire(PART_LENGTH, NEVER);
      await sleep(5 * TURN_MS);
      assert.equal(writes > 0, hasFile);
      await part.push(SECOND);
      await assertWhole(part);
      await part[Symbol.asyncDispose]();
      (await acquiring)[Symbol.dispose]();
    }
  });

  it('is not set aside while nobody waits', async () => {
    gate.resolve();
    await using part = makePart();
    await part.push(FIRST);
    await sleep(5 * TURN_MS);
    assert.equal(writes, 0);
  });

  it('fails with cache_unusable when it can not be read back', async () => {
    gate.resolve();
    await using part = makePart();
    await part.push(FIRST);
    (await memory.acquire(PART_LENGTH, NEVER))[Symbol.dispose]();
    await handle.truncate(0);
    await assert.rejects(part.push(SECOND), { code: 'cache_unusable' });
    assert.equal(memory.held, 0);
  });
});
