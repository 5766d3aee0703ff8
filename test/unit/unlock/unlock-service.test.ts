import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { readArchiveIdentity } from '../../../src/archive/open-archive.ts';
import { NEVER, unlessAborted } from '../../../src/async/abort.ts';
import type { UnlockedArchive } from '../../../src/binary-split/unlock-archive.ts';
import type { UnlockProgress } from '../../../src/binary-split/unlock-progress.ts';
import { LoaderError } from '../../../src/errors.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { deriveArchiveAesKey } from '../../../src/security/key-derivation.ts';
import type { RunWorker, UnlockRunOptions } from '../../../src/unlock/unlock-run.ts';
import { UnlockService, type UnlockStatus } from '../../../src/unlock/unlock-service.ts';
import { makeImage, makeLayer, saveImages } from '../../../lab/images/image-maker.ts';

const FRAGMENT = Buffer.from('the key fragment');
const IMAGES = [{ id: 'sha256:aa', tags: ['azaion/api:1'] }];
const HALF: UnlockProgress = {
  bytesDone: 50,
  bytesTotal: 100,
  imagesDone: 0,
  imagesTotal: 1,
  currentImages: ['azaion/api:1'],
  percent: 50,
  bytesPerSecond: 10,
  secondsLeft: 5,
};

/** A service whose upstream, engine and worker do what a test says. */
class Lab {
  readonly calls: string[] = [];
  readonly begun: string[] = [];
  /** Whether the engine has the images: after an unlock it has. */
  hasImages = false;
  isLoaded: (signal: AbortSignal) => Promise<boolean> = () => Promise.resolve(this.hasImages);
  /** Fails when it rejects; the archive is loaded then. */
  load: (signal: AbortSignal) => Promise<void> = () => Promise.resolve();
  terminations = 0;
  readonly service: UnlockService;
  readonly archivePath: string;
  readonly receiptPath: string;

  constructor(archivePath: string) {
    this.archivePath = archivePath;
    this.receiptPath = `${archivePath}.receipt`;
    const session = {
      api: {
        fetchKeyFragment: () => {
          this.calls.push('fragment');
          return Promise.resolve(FRAGMENT);
        },
      },
    };
    const upstream = {
      login: async (email: string) => {
        this.calls.push(`login ${email}`);
        await setImmediate(); // So that a test sees the state before.
        return session;
      },
      logInBeside: (email: string) => {
        this.calls.push(`login beside ${email}`);
        return Promise.resolve();
      },
      session: () => {
        this.calls.push('session');
        return Promise.resolve(session);
      },
    } as unknown as UnlockRunOptions['upstream'];
    this.service = new UnlockService({
      upstream,
      presence: { isLoaded: (signal) => this.isLoaded(signal) },
      archivePath,
      receiptPath: this.receiptPath,
      createWorker: () => this.#createWorker(),
      logger: createLogger({ level: 'silent' }),
    });
    this.service.onRun((email) => this.begun.push(email));
  }

  async start(email = 'a@example.com'): Promise<string> {
    return await this.service.start(email, 'secret');
  }

  async putArchive(content = 'A'): Promise<void> {
    const tar = saveImages([makeImage({ layers: [makeLayer({ content })] })]);
    await writeFile(this.archivePath, encryptBuffer(tar, deriveArchiveAesKey(FRAGMENT)));
  }

  async statuses(): Promise<UnlockStatus[]> {
    return await Array.fromAsync(this.service.watch(NEVER));
  }

  async ended(): Promise<UnlockStatus | undefined> {
    return (await this.statuses()).at(-1);
  }

  async *#unlock(signal: AbortSignal): AsyncGenerator<UnlockProgress, UnlockedArchive, undefined> {
    yield HALF;
    await this.load(signal);
    this.hasImages = true;
    return { identity: await readArchiveIdentity(this.archivePath), images: IMAGES };
  }

  #createWorker(): RunWorker {
    this.calls.push('worker');
    return {
      unlock: (aesKey, signal) => {
        assert.deepEqual(aesKey, deriveArchiveAesKey(FRAGMENT));
        return this.#unlock(signal);
      },
      terminate: () => {
        this.terminations++;
        return Promise.resolve();
      },
      [Symbol.asyncDispose]: () => {
        this.calls.push('worker ended');
        return Promise.resolve();
      },
    };
  }
}

let folder = '';
let lab: Lab;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-unlock-'));
  lab = new Lab(path.join(folder, 'images.enc'));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function untilAborted(signal: AbortSignal): Promise<void> {
  await unlessAborted(new Promise(() => undefined), signal);
}

describe('an unlock before its first run', () => {
  const { signal } = new AbortController();

  it('is ready when the engine has the images, and a run finds nothing to do', async () => {
    await lab.putArchive();
    lab.hasImages = true;
    await lab.service.findLoaded(signal);
    assert.deepEqual(lab.service.status, { state: 'ready', error: null, code: null, progress: null });
    assert.equal(await lab.start(), 'ready');
    assert.deepEqual(lab.calls, ['login beside a@example.com']);
  });

  it('is ready without an archive, too', async () => {
    lab.hasImages = true;
    await lab.service.findLoaded(signal);
    assert.equal(lab.service.status.state, 'ready');
  });

  it('stays idle when the engine lacks an image, or can not be asked', async () => {
    await lab.putArchive();
    await lab.service.findLoaded(signal);
    lab.isLoaded = () => Promise.reject(new LoaderError('engine_unreachable', 'no'));
    await assert.rejects(lab.service.findLoaded(signal), { code: 'engine_unreachable' });
    assert.equal(lab.service.status.state, 'idle');
    assert.deepEqual(lab.calls, []);
  });

  it('leaves the state to a run that began meanwhile', async () => {
    await lab.putArchive();
    const answer = Promise.withResolvers<boolean>();
    lab.isLoaded = () => answer.promise;
    const finding = lab.service.findLoaded(signal);
    while ((await lab.start()) !== 'authenticating') await setImmediate();
    lab.isLoaded = () => Promise.resolve(false);
    answer.resolve(true);
    await finding;
    assert.equal((await lab.ended())?.state, 'ready');
    assert.equal(lab.calls.filter((call) => call === 'worker').length <= 1, true);
  });

  it('loads an archive that was put there afterwards', async () => {
    await lab.putArchive();
    lab.hasImages = true;
    await lab.service.findLoaded(signal);
    await lab.putArchive('B');
    lab.hasImages = false;
    assert.equal(await lab.start(), 'authenticating');
    assert.equal((await lab.ended())?.state, 'ready');
    assert.ok(lab.calls.includes('worker'));
  });
});

describe('a run of the unlock', () => {
  it('goes from the login to ready, and shows the progress as the worker tells it', async () => {
    await lab.putArchive();
    assert.equal(await lab.start(), 'authenticating');
    assert.deepEqual(lab.begun, ['a@example.com']);
    const statuses = await lab.statuses();
    const shown = statuses.map(({ state, progress }) => [state, progress?.percent ?? null]);
    assert.deepEqual(shown.at(0), ['authenticating', null]);
    assert.deepEqual(shown.at(-1), ['ready', 100]);
    assert.deepEqual(lab.calls, ['worker', 'login a@example.com', 'fragment', 'worker ended']);
    assert.deepEqual(lab.service.status.progress, {
      ...HALF,
      imagesDone: 1,
      currentImages: [],
      percent: 100,
      bytesPerSecond: 0,
      secondsLeft: 0,
    });
  });

  it('is loading images from the first progress on', async () => {
    await lab.putArchive();
    const held = Promise.withResolvers<undefined>();
    lab.load = async () => {
      await held.promise;
    };
    await lab.start();
    const seen: UnlockStatus[] = [];
    for await (const status of lab.service.watch(NEVER)) {
      seen.push(status);
      if (status.state === 'loading_images') held.resolve(undefined);
    }
    assert.deepEqual(seen.find(({ state }) => state === 'loading_images')?.progress, HALF);
    assert.ok(
      seen.every(({ state, progress }) => (progress === null) === !['loading_images', 'ready'].includes(state)),
    );
  });

  it('waits for no login when the images are loaded already, and logs in beside', async () => {
    await lab.putArchive();
    lab.isLoaded = () => Promise.resolve(true);
    assert.equal(await lab.start(), 'authenticating');
    assert.deepEqual([(await lab.ended())?.state, lab.calls], ['ready', ['login beside a@example.com']]);
    assert.equal(lab.service.status.progress, null);
  });

  it('is none where there is no archive but its images are loaded', async () => {
    lab.isLoaded = () => Promise.resolve(true);
    assert.equal(await lab.start(), 'ready');
    assert.deepEqual([lab.begun, lab.calls], [[], ['login beside a@example.com']]);
  });

  it('takes the session of the user who is logged in when it has no user of its own', async () => {
    await lab.putArchive();
    assert.equal(await lab.service.startRelease(), 'authenticating');
    assert.equal((await lab.ended())?.state, 'ready');
    assert.deepEqual(lab.calls, ['worker', 'session', 'fragment', 'worker ended']);
    assert.equal(await lab.service.startRelease(), 'ready');
    assert.equal(lab.calls.length, 4);
    assert.deepEqual(lab.begun, []);
  });

  it('is refused where there is neither an archive nor its images, and leaves the state', async () => {
    await assert.rejects(lab.start(), { code: 'archive_not_found' });
    assert.equal(lab.service.status.state, 'idle');
    await lab.putArchive();
    assert.equal(await lab.start(), 'authenticating');
    await lab.ended();
  });

  it('is none when this very archive is unlocked, and the progress stands', async () => {
    await lab.putArchive();
    await lab.start();
    const last = await lab.ended();
    assert.equal(await lab.start('b@example.com'), 'ready');
    assert.deepEqual(lab.begun, ['a@example.com']);
    assert.deepEqual(lab.service.status, last);
  });

  it('is a new one for another archive', async () => {
    await lab.putArchive();
    await lab.start();
    await lab.ended();
    await lab.putArchive('another');
    assert.equal(await lab.start('b@example.com'), 'authenticating');
    assert.equal(lab.service.status.progress, null);
    assert.equal((await lab.ended())?.state, 'ready');
    assert.deepEqual(lab.begun, ['a@example.com', 'b@example.com']);
  });

  it('is shared by callers that come at the same time, and by those that come later', async () => {
    await lab.putArchive();
    const held = Promise.withResolvers<undefined>();
    lab.load = async () => {
      await held.promise;
    };
    const states = await Promise.all(Array.from({ length: 10 }, (_, at) => lab.start(`user-${at}`)));
    assert.deepEqual(new Set(states), new Set(['authenticating']));
    for await (const { state } of lab.service.watch(NEVER)) if (state === 'loading_images') break;
    assert.equal(await lab.start('later'), 'loading_images');
    held.resolve(undefined);
    await lab.ended();
    assert.deepEqual(lab.begun, ['user-0']);
    assert.deepEqual(
      lab.calls.filter((call) => call.startsWith('login')),
      ['login user-0'],
    );
  });

  it('shares its refusal with callers that come at the same time', async () => {
    const outcomes = await Promise.allSettled([lab.start(), lab.start()]);
    assert.deepEqual(
      outcomes.map((outcome) => (outcome.status === 'rejected' ? (outcome.reason as LoaderError).code : '')),
      ['archive_not_found', 'archive_not_found'],
    );
  });

  it('fails with the code of what failed, lets the worker go, and keeps its progress without a rate', async () => {
    await lab.putArchive();
    lab.load = () => Promise.reject(new LoaderError('engine_disk_full', 'The disk is full.'));
    await lab.start();
    const { state, error, code, progress } = (await lab.ended()) ?? {};
    assert.deepEqual([state, error, code], ['error', 'The disk is full.', 'engine_disk_full']);
    assert.deepEqual(progress, { ...HALF, bytesPerSecond: 0, secondsLeft: null });
    assert.equal(lab.calls.at(-1), 'worker ended');
  });

  it('is ready even when its receipt cannot be written', async () => {
    await lab.putArchive();
    await mkdir(lab.receiptPath);
    await lab.start();
    assert.equal((await lab.ended())?.state, 'ready');
  });

  it('leaves a receipt of the archive and its images', async () => {
    await lab.putArchive();
    await lab.start();
    await lab.ended();
    assert.deepEqual(JSON.parse(await readFile(lab.receiptPath, 'utf8')), {
      version: 1,
      identity: await readArchiveIdentity(lab.archivePath),
      images: IMAGES,
    });
  });
});

describe('a run that is cancelled', () => {
  it('ends with its side effects, and says so', async () => {
    await lab.putArchive();
    lab.load = untilAborted;
    await lab.start();
    assert.equal(await lab.service.cancel(), 'error');
    assert.equal(lab.calls.at(-1), 'worker ended');
    assert.equal(lab.service.status.code, 'unlock_cancelled');
    lab.load = () => Promise.resolve();
    await lab.start();
    assert.equal((await lab.ended())?.state, 'ready');
  });

  it('while it looks whether there is anything to do fails for its caller, and leaves the state', async () => {
    lab.isLoaded = async (signal) => {
      await untilAborted(signal);
      return false;
    };
    const starting = lab.start();
    const refused = assert.rejects(starting, { code: 'unlock_cancelled' });
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(await lab.service.cancel(), 'idle');
    await refused;
    assert.deepEqual(lab.begun, []);
  });

  it('may be none', async () => {
    assert.equal(await lab.service.cancel(), 'idle');
  });
});

describe('the end of the process', () => {
  it('ends the run, and refuses the next one', async () => {
    await lab.putArchive();
    lab.load = untilAborted;
    await lab.start();
    await lab.service.stop(NEVER);
    assert.equal(lab.service.status.code, 'unlock_cancelled');
    await assert.rejects(lab.start(), { code: 'shutting_down' });
    assert.equal(lab.terminations, 0);
  });

  it('breaks off what cannot be taken back when its time is over', async () => {
    await lab.putArchive();
    const loading = Promise.withResolvers<undefined>();
    const held = Promise.withResolvers<undefined>();
    lab.load = async () => {
      loading.resolve(undefined);
      await held.promise;
    };
    await lab.start();
    await loading.promise;
    const deadline = new AbortController();
    const stopping = lab.service.stop(deadline.signal);
    assert.equal(lab.terminations, 0);
    deadline.abort();
    assert.equal(lab.terminations, 1);
    held.reject(new Error('the worker thread of the unlock ended early'));
    await stopping;
    assert.equal(lab.service.status.code, 'unlock_cancelled');
  });

  it('ends the watching of a run that never begins', async () => {
    const statuses = lab.service.watch(NEVER);
    assert.equal((await statuses.next()).value?.state, 'idle');
    const next = statuses.next();
    await lab.service.stop(NEVER);
    assert.deepEqual([(await next).value?.state, (await statuses.next()).done], ['idle', true]);
  });
});

describe('a ready release', () => {
  beforeEach(async () => {
    await lab.putArchive();
    await lab.start();
    await lab.ended();
  });

  it('is idle again when a look finds an image missing, and shows no progress', async () => {
    await lab.service.recheck(NEVER);
    assert.equal(lab.service.status.state, 'ready');
    lab.hasImages = false;
    await lab.service.recheck(NEVER);
    assert.deepEqual([lab.service.status.state, lab.service.status.progress], ['idle', null]);
  });

  it('is loaded again by the next start, which looks for itself', async () => {
    lab.hasImages = false;
    assert.equal(await lab.start('b@example.com'), 'authenticating');
    assert.equal((await lab.ended())?.state, 'ready');
    assert.deepEqual(lab.begun, ['a@example.com', 'b@example.com']);
  });

  it('stays as it is when the engine cannot be asked', async () => {
    lab.isLoaded = () => Promise.reject(new LoaderError('engine_unreachable', 'no'));
    await assert.rejects(lab.service.recheck(NEVER), { code: 'engine_unreachable' });
    assert.equal(lab.service.status.state, 'ready');
  });

  it('is not made idle by a look that was overtaken by a run', async () => {
    const look = Promise.withResolvers<boolean>();
    const ownAnswer = lab.isLoaded;
    lab.isLoaded = () => {
      lab.isLoaded = ownAnswer;
      return look.promise;
    };
    const checked = lab.service.recheck(NEVER);
    lab.hasImages = false;
    await lab.start();
    await lab.ended();
    look.resolve(false);
    await checked;
    assert.equal(lab.service.status.state, 'ready');
  });

  it('is idle where its archive was removed too, and the start says so', async () => {
    await rm(lab.archivePath);
    lab.hasImages = false;
    await assert.rejects(lab.start(), { code: 'archive_not_found' });
    assert.equal(lab.service.status.state, 'idle');
  });
});
