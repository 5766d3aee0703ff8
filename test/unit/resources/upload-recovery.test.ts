import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { Changes } from '../../../src/async/changes.ts';
import { KeyedReadWriteLock } from '../../../src/async/keyed-read-write-lock.ts';
import { LoaderError } from '../../../src/errors.ts';
import { UploadJournal } from '../../../src/resources/upload-journal.ts';
import { UploadRecovery } from '../../../src/resources/upload-recovery.ts';
import { decryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { HookedFs } from '../../../lab/faults/hooked-fs.ts';
import { sha256 } from '../../../lab/sha256.ts';
import { eventually } from '../../../lab/waiting.ts';
import { KEY, makeVersion, uploadItems, UploadLab, type FakeUpload } from '../../support/upload-lab.ts';

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

interface Recovery extends AsyncDisposable {
  logIn(): void;
}

/** The next process: it finds the journal, and works until the disposal. */
async function restart(options: { isLoggedIn?: boolean; publicationLocks?: KeyedReadWriteLock } = {}) {
  const journal = new UploadJournal(stateDir, lab.folder.logger);
  await journal.load();
  return recover(journal, options);
}

/** Works on a journal until the disposal. */
function recover(
  journal: UploadJournal,
  { isLoggedIn = true, secondLookMs = 0, publicationLocks = new KeyedReadWriteLock() } = {},
): Recovery {
  const logins = new Changes();
  const upstream = {
    isAuthenticated: isLoggedIn,
    get nextLogin() {
      return logins.next;
    },
    currentSession: () => ({ ...lab.session }),
  };
  const { logger } = lab.folder;
  const abort = new AbortController();
  const running = new UploadRecovery({
    upstream,
    journal,
    manifests: lab.manifests,
    publicationLocks,
    logger,
    secondLookMs,
  }).run(abort.signal);
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
    assert.deepEqual(lab.cdn.resumed.at(-1), lab.cdn.uploads.at(-1)?.parts);
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

  it('is left alone where a login decrypts its small part to something else', async () => {
    await dieAt('beforeComplete');
    lab.api.decrypt = () => Buffer.from('something else');
    await using _recovery = await restart();
    await new Promise((resolve) => setTimeout(resolve, 30));
    assert.equal((await entries()).length, 1);
    assert.equal(lab.cdn.uploads.at(-1)?.state, 'open');
  });

  it('is asked about once for each login', async () => {
    await dieAt('beforeComplete');
    let tries = 0;
    lab.api.decrypt = () => {
      tries++;
      throw new LoaderError('envelope_invalid', 'Another user has encrypted it.');
    };
    await using recovery = await restart();
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(tries, 1);
    recovery.logIn();
    await eventually(() => tries === 2);
  });

  it('is not touched while another upload of the resource is being published, and loads go on beside it', async () => {
    await dieAt('beforeComplete');
    const publicationLocks = new KeyedReadWriteLock();
    const publishing = await publicationLocks.exclusive('models/m');
    await using _recovery = await restart({ publicationLocks });
    await new Promise((resolve) => setTimeout(resolve, 30));
    assert.equal(lab.cdn.uploads.at(-1)?.state, 'open');
    const looking = Promise.withResolvers<undefined>();
    const going = Promise.withResolvers<undefined>();
    lab.cdn.beforeLook = async () => {
      looking.resolve(undefined);
      await going.promise;
    };
    publishing[Symbol.dispose]();
    await looking.promise;
    (await publicationLocks.shared('models/m', AbortSignal.timeout(1_000)))[Symbol.dispose]();
    going.resolve(undefined);
    await cleared();
    assert.ok(plaintext().equals(CONTENT));
  });

  it('is tried again when its small part could not be looked at', async () => {
    await dieAt('afterComplete');
    lab.api.files.set(SMALL, Buffer.from('another'));
    let fetches = 0;
    lab.api.beforeFetch = () =>
      fetches++ === 0 ? Promise.reject(new LoaderError('api_unreachable', 'no')) : Promise.resolve();
    await using _recovery = await restart();
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

describe('the first upload of a resource', () => {
  it('is removed when its process died before its small part was stored', async () => {
    await dieAt('storing');
    await using _recovery = await restart();
    await cleared();
    assert.equal(lab.cdn.uploads.at(-1)?.state, 'aborted');
    assert.equal(lab.api.files.size, 0);
  });
});

describe('an upload whose end is unknown', () => {
  const EARLIER = Buffer.from('the earlier small part');
  const unreachable = () => Promise.reject(new LoaderError('cdn_unreachable', 'no'));
  beforeEach(() => {
    lab.api.files.set(SMALL, EARLIER);
  });

  /** Changes the next upload. */
  const onUpload = (hooks: Partial<FakeUpload>) => {
    lab.cdn.onStart = (started) => {
      lab.cdn.onStart = () => undefined;
      Object.assign(started, hooks);
    };
  };
  const healed = () => Object.assign(lab.cdn.uploads.at(-1) ?? {}, { beforeComplete: go, beforeAbort: go });
  const go = () => Promise.resolve();

  it('stays in the journal when it can be neither completed nor removed: it is completed later', async () => {
    onUpload({ beforeComplete: unreachable, beforeAbort: unreachable });
    await assert.rejects(upload(), { code: 'cdn_unreachable' });
    assert.notEqual(small(), EARLIER);
    assert.equal((await entries()).length, 1);
    healed();
    await using _recovery = recover(lab.journal);
    await cleared();
    assert.ok(plaintext().equals(CONTENT));
  });

  it('stays in the journal when it is gone and its object can not be looked at', async () => {
    onUpload({ afterComplete: unreachable });
    lab.cdn.beforeLook = unreachable;
    await assert.rejects(upload(), { code: 'cdn_unreachable' });
    assert.notEqual(small(), EARLIER);
    lab.cdn.beforeLook = go;
    await using _recovery = recover(lab.journal);
    await cleared();
    assert.ok(plaintext().equals(CONTENT));
  });

  it('is over when it was removed, whatever the object: the earlier small part is put back', async () => {
    onUpload({ beforeComplete: unreachable });
    lab.cdn.beforeLook = unreachable;
    await assert.rejects(upload(), { code: 'cdn_unreachable' });
    assert.equal(small(), EARLIER);
    assert.deepEqual(await entries(), []);
  });

  it('that was removed leaves the small part of another upload alone', async () => {
    const theirs = Buffer.from('of another Loader');
    onUpload({
      beforeComplete: () => {
        lab.api.files.set(SMALL, theirs);
        return unreachable();
      },
    });
    await assert.rejects(upload(), { code: 'cdn_unreachable' });
    assert.equal(small(), theirs);
  });

  it('that was not published is removed later when it can not be now', async () => {
    onUpload({ beforePart: unreachable, beforeAbort: unreachable });
    await assert.rejects(upload(), { code: 'cdn_unreachable' });
    assert.equal((await entries()).length, 1);
    healed();
    await using _recovery = recover(lab.journal);
    await cleared();
    assert.equal(lab.cdn.uploads.at(-1)?.state, 'aborted');
  });

  it('has succeeded all the same when only the look after it fails', async () => {
    lab.cdn.beforeLook = unreachable;
    await upload();
    lab.cdn.beforeLook = go;
    assert.ok(plaintext().equals(CONTENT));
    await using _recovery = recover(lab.journal);
    await cleared();
  });
});

describe('an upload that has ended', () => {
  it('is looked at once more by its own process, which then forgets it', async () => {
    await using _recovery = recover(lab.journal);
    await new Promise((resolve) => setTimeout(resolve, 20));
    await upload();
    await cleared();
    assert.deepEqual(lab.journal.released, []);
  });

  it('is forgotten when it was told that another one stands', async () => {
    lab.cdn.beforeLook = () => {
      lab.cdn.objects.set(BIG, makeVersion({ smallSha256: 'of another' }));
      return Promise.resolve();
    };
    await assert.rejects(upload(), { code: 'upload_superseded' });
    assert.deepEqual([await entries(), lab.journal.released], [[], []]);
  });

  it('is told so when its object was removed meanwhile', async () => {
    lab.cdn.beforeLook = () => {
      lab.cdn.objects.delete(BIG);
      return Promise.resolve();
    };
    await assert.rejects(upload(), { code: 'upload_superseded' });
  });

  it('stores nothing once another object stands, even where its own small part does', async () => {
    lab.api.files.set(SMALL, Buffer.from('the earlier small part'));
    await upload();
    const ours = small();
    lab.cdn.objects.set(BIG, makeVersion({ smallSha256: 'of another' }));
    await using _recovery = await restart();
    await cleared();
    assert.equal(small(), ours);
  });

  it('is looked at now when the clock was set back since', async () => {
    await upload();
    const [file = ''] = await entries();
    const filePath = path.join(stateDir, 'uploads', file);
    const text = await readFile(filePath, 'utf8');
    await writeFile(filePath, text.replace(/"standsSinceMs":\d+/, `"standsSinceMs":${Date.now() + 3_600_000}`));
    await using _recovery = await restart();
    await cleared();
  });

  it('is looked at once more: the small part of a crossing one is replaced', async () => {
    await upload();
    lab.api.files.set(SMALL, Buffer.from('of a crossing upload'));
    await using _recovery = await restart();
    await cleared();
    assert.ok(plaintext().equals(CONTENT));
  });

  it('is not looked at before its time', async () => {
    await upload();
    await using _recovery = recover(lab.journal, { secondLookMs: 60_000 });
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal((await entries()).length, 1);
  });

  it('leaves the later upload of another Loader alone', async () => {
    await upload();
    const theirs = Buffer.from('of another Loader');
    lab.api.files.set(SMALL, theirs);
    lab.cdn.objects.set(BIG, makeVersion({ smallSha256: sha256(theirs) }));
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

  it('has both small parts on the disk before the new one is stored', async () => {
    const syncs: string[] = [];
    const hookedFs = new HookedFs();
    hookedFs.onOpen(/uploads\/[^/]+\.part$/, (handle) => {
      const sync = handle.sync.bind(handle);
      Object.assign(handle, {
        sync: async () => {
          syncs.push(JSON.stringify(await handle.readFile('utf8')));
          await sync();
        },
      });
    });
    lab.api.beforeStore = () => {
      assert.match(syncs.at(-1) ?? '', /publication/);
      return Promise.resolve();
    };
    try {
      await upload();
    } finally {
      hookedFs.restore();
    }
  });

  it('that can not be written or read costs no upload', async () => {
    await mkdir(stateDir, { recursive: true });
    await writeFile(path.join(stateDir, 'uploads'), 'no folder');
    await upload();
    assert.ok(plaintext().equals(CONTENT));
    await using _recovery = await restart();
  });

  it('works on the others when an entry can not be read', async () => {
    await upload();
    await mkdir(path.join(stateDir, 'uploads', '0.json'));
    await using _recovery = await restart();
    await eventually(async () => (await entries()).join() === '0.json');
  });

  it('has no upload that the CDN has refused', async () => {
    lab.cdn.onStart = () => {
      throw new LoaderError('cdn_access_denied', 'no');
    };
    await assert.rejects(upload(), { code: 'cdn_access_denied' });
    assert.deepEqual(await entries(), []);
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

  it('has an upload that was asked for twice: another one that began at its place is removed once it has ended', async () => {
    lab.cdn.onAsk = ({ onRepeat }) => onRepeat?.(new LoaderError('cdn_unreachable', 'no'));
    await upload();
    assert.deepEqual(lab.cdn.emptied, []);
    {
      await using _recovery = await restart();
      await cleared();
      assert.deepEqual(lab.cdn.emptied, [BIG]);
    }
    lab.cdn.onStart = (started) => {
      started.beforePart = () => Promise.reject(new LoaderError('cdn_access_denied', 'no'));
    };
    await assert.rejects(upload(), { code: 'cdn_access_denied' });
    assert.deepEqual([await entries(), lab.cdn.emptied], [[], [BIG, BIG]]);
    lab.cdn.onAsk = () => undefined;
    await assert.rejects(upload(), { code: 'cdn_access_denied' });
    assert.deepEqual(lab.cdn.emptied, [BIG, BIG]);
  });

  it('has an upload that was asked for twice and then refused', async () => {
    lab.cdn.onAsk = ({ onRepeat }) => onRepeat?.(new LoaderError('cdn_unreachable', 'no'));
    lab.cdn.onStart = () => {
      throw new LoaderError('cdn_access_denied', 'no');
    };
    await assert.rejects(upload(), { code: 'cdn_access_denied' });
    await using _recovery = await restart();
    await cleared();
    assert.deepEqual(lab.cdn.emptied, [BIG]);
  });
});
