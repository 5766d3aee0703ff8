import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { makeImage, makeLayer, saveImages } from '../../../lab/images/image-maker.ts';
import { readArchiveIdentity } from '../../../src/archive/open-archive.ts';
import { happens, unlessAborted } from '../../../src/async/abort.ts';
import { Changes } from '../../../src/async/changes.ts';
import type { UnlockedArchive } from '../../../src/binary-split/unlock-archive.ts';
import type { UnlockProgress } from '../../../src/binary-split/unlock-progress.ts';
import { LoaderError } from '../../../src/errors.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { deriveArchiveAesKey } from '../../../src/security/key-derivation.ts';
import { UnlockRun, type UnlockRunOptions } from '../../../src/unlock/unlock-run.ts';
import { UnlockStateMachine } from '../../../src/unlock/unlock-state-machine.ts';

const FRAGMENT = Buffer.from('the key fragment');
const CREDENTIALS = { email: 'a@example.com', password: 'secret' };

function progressOf(percent: number): UnlockProgress {
  return {
    bytesDone: percent,
    bytesTotal: 100,
    imagesDone: 0,
    imagesTotal: 1,
    currentImages: ['azaion/api:1'],
    percent,
    bytesPerSecond: 10,
    secondsLeft: 5,
  };
}

/** The surroundings of runs: each step does what a test says. */
class RunLab {
  readonly archivePath: string;
  readonly changes = new Changes();
  readonly machine = new UnlockStateMachine(this.changes);
  fragment = FRAGMENT;
  unlockCalls = 0;
  isLoaded: (signal: AbortSignal) => Promise<boolean> = () => Promise.resolve(false);
  unlock: (this: RunLab, signal: AbortSignal) => AsyncGenerator<UnlockProgress, UnlockedArchive, undefined> = () =>
    this.unlocked([]);

  constructor(archivePath: string) {
    this.archivePath = archivePath;
  }

  start(earlier?: UnlockRun): UnlockRun {
    const claim = this.machine.claim();
    assert.ok(claim);
    const session = { api: { fetchKeyFragment: () => Promise.resolve(this.fragment) } };
    const upstream = {
      login: () => Promise.resolve(session),
      logInBeside: () => Promise.resolve(),
    } as unknown as UnlockRunOptions['upstream'];
    const options: UnlockRunOptions = {
      upstream,
      presence: { isLoaded: (signal) => this.isLoaded(signal) },
      archivePath: this.archivePath,
      receiptPath: `${this.archivePath}.receipt`,
      createWorker: () => ({
        unlock: (_aesKey, signal) => {
          this.unlockCalls++;
          return this.unlock(signal);
        },
        terminate: () => Promise.resolve(),
        [Symbol.asyncDispose]: () => Promise.resolve(),
      }),
      logger: createLogger({ level: 'silent' }),
    };
    return new UnlockRun(options, { claim, changes: this.changes }, CREDENTIALS, earlier);
  }

  async putArchive(content = 'A'): Promise<void> {
    const tar = saveImages([makeImage({ layers: [makeLayer({ content })] })]);
    await writeFile(this.archivePath, encryptBuffer(tar, deriveArchiveAesKey(FRAGMENT)));
  }

  async *unlocked(steps: readonly UnlockProgress[]): AsyncGenerator<UnlockProgress, UnlockedArchive, undefined> {
    yield* steps;
    return { identity: await readArchiveIdentity(this.archivePath), images: [] };
  }
}

let folder = '';
let lab: RunLab;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-unlock-run-'));
  lab = new RunLab(path.join(folder, 'images.enc'));
  await lab.putArchive();
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe('a run of the unlock', () => {
  it('refuses a wrong key before the worker gets it', async () => {
    lab.fragment = Buffer.from('another key fragment');
    await lab.start().ended;
    assert.deepEqual([lab.machine.state, lab.machine.error?.code], ['error', 'archive_key_wrong']);
    assert.equal(lab.unlockCalls, 0);
  });

  it('announces every progress of the worker', async () => {
    const seen: number[] = [];
    lab.unlock = async function* (this: RunLab) {
      for (const percent of [10, 20, 30]) {
        const changed = this.changes.next;
        yield progressOf(percent);
        if (await happens(changed, AbortSignal.timeout(1_000))) seen.push(percent);
      }
      return yield* this.unlocked([]);
    };
    const run = lab.start();
    await run.ended;
    assert.deepEqual([seen, run.progress?.percent, lab.machine.state], [[10, 20, 30], 100, 'ready']);
  });

  it('fails with internal_error when the worker fails for an unknown reason', async () => {
    lab.unlock = async function* (this: RunLab) {
      await Promise.reject(new TypeError('a fault'));
      return yield* this.unlocked([]);
    };
    await lab.start().ended;
    assert.deepEqual([lab.machine.state, lab.machine.error?.code], ['error', 'internal_error']);
  });

  it('fails with the first reason when it is cancelled twice', async () => {
    lab.unlock = async function* (this: RunLab, signal: AbortSignal) {
      yield progressOf(10);
      await unlessAborted(new Promise(() => undefined), signal);
      return yield* this.unlocked([]);
    };
    const run = lab.start();
    await run.begun;
    run.cancel(new LoaderError('unlock_cancelled', 'the first reason'));
    run.cancel(new LoaderError('unlock_cancelled', 'the second reason'));
    await run.ended;
    assert.equal(lab.machine.error?.message, 'the first reason');
  });

  it('shows the progress of the run before it until it begins', async () => {
    lab.unlock = () => lab.unlocked([progressOf(10)]);
    const first = lab.start();
    await first.ended;
    await lab.putArchive('another');
    const second = lab.start(first);
    assert.equal(second.progress?.percent, 100);
    lab.isLoaded = () => Promise.resolve(true);
    assert.equal(await second.begun, true);
    assert.equal(second.progress, null);
    await second.ended;
  });

  it('does not begin while the archive that was unlocked is loaded', async () => {
    const first = lab.start();
    await first.ended;
    lab.isLoaded = () => Promise.resolve(true);
    const second = lab.start(first);
    assert.equal(await second.begun, false);
    assert.equal(lab.machine.isClaimed, false);
    assert.deepEqual(second.unlocked, first.unlocked);
  });

  it('begins at a ready release when the engine cannot be asked, and reports it', async () => {
    const first = lab.start();
    await first.ended;
    lab.isLoaded = () => Promise.reject(new LoaderError('engine_unreachable', 'No engine listens.'));
    const second = lab.start(first);
    assert.equal(await second.begun, true);
    await second.ended;
    assert.deepEqual([lab.machine.state, lab.machine.error?.code], ['error', 'engine_unreachable']);
  });
});
