import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { Changes } from '../../../src/async/changes.ts';
import { KeyedReadWriteLock } from '../../../src/async/keyed-read-write-lock.ts';
import { LoaderError } from '../../../src/errors.ts';
import { UploadJournal } from '../../../src/resources/upload-journal.ts';
import { UploadRecovery } from '../../../src/resources/upload-recovery.ts';
import { decryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { sha256 } from '../../../lab/sha256.ts';
import { eventually } from '../../../lab/waiting.ts';
import { KEY, uploadItems, UploadLab } from '../../support/upload-lab.ts';

const CONTENT = randomBytes(100_000);
const SMALL = 'models/m.small';
const BIG = 'models/m.big';

let lab: UploadLab;
let stateDir: string;

beforeEach(async () => {
  lab = await UploadLab.create();
  stateDir = path.join(lab.folder.base, 'state');
});

afterEach(async () => {
  await lab[Symbol.asyncDispose]();
});

const upload = (content = CONTENT) => lab.uploads.upload('m', uploadItems(content), NEVER);
const entries = async () => (await readdir(path.join(stateDir, 'uploads')).catch(() => [])).toSorted();

/** Begins an upload and waits until it stands still at `place`, as a process that dies there leaves it. */
async function dieAt(place: 'beforePart' | 'beforeComplete' | 'afterComplete' | 'storing'): Promise<void> {
  const reached = Promise.withResolvers<undefined>();
  const stop = async () => {
    reached.resolve(undefined);
    await new Promise(() => undefined);
  };
  if (place === 'storing') lab.api.beforeStore = stop;
  else lab.cdn.onStart = (started) => Object.assign(started, { [place]: stop });
  void lab.mortal.upload('m', uploadItems(CONTENT), NEVER);
  await reached.promise;
  lab.api.beforeStore = () => Promise.resolve();
  lab.cdn.onStart = () => undefined;
  const last = lab.cdn.uploads.at(-1);
  if (last !== undefined && place !== 'storing') last[place] = () => Promise.resolve();
}

/** The next process: it finds the journal, and works until the disposal. */
async function restart({ isLoggedIn = true, secondLookMs = 0 } = {}): Promise<AsyncDisposable & { logIn(): void }> {
  const logins = new Changes();
  const upstream = {
    isAuthenticated: isLoggedIn,
    get nextLogin() {
      return logins.next;
    },
    currentSession: () => ({ ...lab.session }),
  };
  const { logger } = lab.folder;
  const journal = new UploadJournal(stateDir, logger);
  await journal.load();
  const publicationLocks = new KeyedReadWriteLock();
  const abort = new AbortController();
  const running = new UploadRecovery({ upstream, journal, publicationLocks, logger, secondLookMs }).run(abort.signal);
  return {
    logIn: () => {
      upstream.isAuthenticated = true;
      logins.announce();
    },
    [Symbol.asyncDispose]: async () => {
      abort.abort();
      await running;
    },
  };
}

const cleared = () => eventually(async () => (await entries()).length === 0);

function plaintext(): Buffer {
  const big = lab.cdn.uploads.find(({ state, smallSha256 }) => state === 'completed' && smallSha256 === standing());
  return decryptBuffer(Buffer.concat([small(), big?.content ?? Buffer.alloc(0)]), KEY);
}
const small = () => lab.api.files.get(SMALL) ?? assert.fail('there is no small part');
const standing = () => lab.cdn.objects.get(BIG)?.smallSha256;

describe('an upload whose process died', () => {
  const earlierContent = randomBytes(50_000);
  beforeEach(async () => {
    await upload(earlierContent);
    await using _recovery = await restart();
    await cleared();
  });

  it('while its parts were sent is removed, and the earlier resource stands', async () => {
    await dieAt('beforePart');
    await using _recovery = await restart();
    await cleared();
    assert.equal(lab.cdn.uploads.at(-1)?.state, 'aborted');
    assert.ok(plaintext().equals(earlierContent));
  });

  it('before its small part was stored is removed, and the earlier resource stands', async () => {
    await dieAt('storing');
    await using _recovery = await restart();
    await cleared();
    assert.equal(lab.cdn.uploads.at(-1)?.state, 'aborted');
    assert.ok(plaintext().equals(earlierContent));
  });

  it('between its two parts is completed', async () => {
    await dieAt('beforeComplete');
    assert.notEqual(sha256(small()), standing());
    await using _recovery = await restart();
    await cleared();
    assert.ok(plaintext().equals(CONTENT));
  });

  it('between its two parts is taken back when the CDN has lost it', async () => {
    await dieAt('beforeComplete');
    await lab.cdn.uploads.at(-1)?.abort();
    await using _recovery = await restart();
    await cleared();
    assert.ok(plaintext().equals(earlierContent));
  });

  it('after its completion gets its small part again where another one stands', async () => {
    await dieAt('afterComplete');
    lab.api.files.set(SMALL, Buffer.from('another'));
    await using _recovery = await restart();
    await cleared();
    assert.ok(plaintext().equals(CONTENT));
  });

  it('leaves the small part of a later upload alone', async () => {
    await dieAt('beforeComplete');
    const later = randomBytes(40_000);
    await lab.others.upload('m', uploadItems(later), NEVER);
    await using _recovery = await restart();
    await cleared();
    assert.ok(plaintext().equals(later));
    assert.ok(lab.cdn.uploads.every(({ state }) => state !== 'open'));
  });

  it('waits for a login, and for that of its own user', async () => {
    await dieAt('beforeComplete');
    const ownKey = lab.api.aesKey;
    lab.api.aesKey = randomBytes(32);
    await using recovery = await restart({ isLoggedIn: false });
    await new Promise((resolve) => setTimeout(resolve, 30));
    assert.equal((await entries()).length, 1);
    recovery.logIn();
    await new Promise((resolve) => setTimeout(resolve, 30));
    assert.equal((await entries()).length, 1);
    assert.equal(lab.cdn.uploads.at(-1)?.state, 'open');
    lab.api.aesKey = ownKey;
    recovery.logIn();
    await cleared();
    assert.ok(plaintext().equals(CONTENT));
  });

  it('is tried again when the CDN is back', async () => {
    await dieAt('beforeComplete');
    let looks = 0;
    lab.cdn.beforeLook = () =>
      looks++ === 0 ? Promise.reject(new LoaderError('cdn_unreachable', 'no')) : Promise.resolve();
    await using _recovery = await restart();
    await cleared();
    assert.ok(plaintext().equals(CONTENT));
  });
});

describe('an upload that has ended', () => {
  it('is looked at once more: the small part of a crossing one is replaced', async () => {
    await upload();
    lab.api.files.set(SMALL, Buffer.from('of a crossing upload'));
    await using _recovery = await restart();
    await cleared();
    assert.ok(plaintext().equals(CONTENT));
  });

  it('is not looked at before its time', async () => {
    await upload();
    await using _recovery = await restart({ secondLookMs: 60_000 });
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal((await entries()).length, 1);
  });

  it('leaves the later upload of another Loader alone', async () => {
    await upload();
    const theirs = Buffer.from('of another Loader');
    lab.api.files.set(SMALL, theirs);
    lab.cdn.objects.set(BIG, { etag: '"2"', length: 1, smallSha256: sha256(theirs) });
    await using _recovery = await restart();
    await cleared();
    assert.equal(small(), theirs);
  });
});

describe('the journal', () => {
  it('holds no small part that can be read without the key of the user', async () => {
    await upload();
    const [file = ''] = await entries();
    const text = await readFile(path.join(stateDir, 'uploads', file), 'utf8');
    assert.ok(!text.includes(small().toString('base64').slice(0, 40)));
    assert.match(text, new RegExp(sha256(small())));
  });

  it('removes what is no entry, and an entry that is damaged', async () => {
    await upload();
    const [file = ''] = await entries();
    const filePath = path.join(stateDir, 'uploads', file);
    await writeFile(filePath, (await readFile(filePath, 'utf8')).replace('"version":1', '"version":"'));
    await writeFile(path.join(stateDir, 'uploads', 'x.part'), '{');
    await using _recovery = await restart();
    assert.deepEqual(await entries(), []);
  });

  it('has an upload whose ID was never told: what began at its place is removed', async () => {
    lab.cdn.onStart = () => {
      throw new LoaderError('cdn_timeout', 'no');
    };
    await assert.rejects(upload(), { code: 'cdn_timeout' });
    await using _recovery = await restart();
    await cleared();
    assert.deepEqual(lab.cdn.emptied, [BIG]);
  });
});
