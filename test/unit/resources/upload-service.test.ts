import assert from 'node:assert/strict';
import { digestsOf } from '../../support/cache-folder.ts';
import { randomBytes } from 'node:crypto';
import { readFile, truncate, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { NEVER } from '../../../src/async/abort.ts';
import { LoaderError } from '../../../src/errors.ts';
import { decryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { HookedFs, systemError } from '../../../lab/faults/hooked-fs.ts';
import { makeVersion, KEY, uploadItems, UploadLab } from '../../support/upload-lab.ts';
import { sha256 } from '../../../lab/sha256.ts';

/** Two parts. */
const CONTENT = randomBytes(900_000);
/** Of two parts of an upload. */
const LARGE = randomBytes(9_000_000);
const EARLIER = Buffer.from('the earlier small part');

const hookedFs = new HookedFs();
let lab: UploadLab;

beforeEach(async () => {
  lab = await UploadLab.create();
});

afterEach(async () => {
  hookedFs.restore();
  await lab[Symbol.asyncDispose]();
});

async function upload(
  folder: Parameters<typeof uploadItems>[1] = {},
  signal = NEVER,
  content = CONTENT,
): Promise<void> {
  await lab.uploads.upload('m', uploadItems(content, folder), signal);
}

/** What a load would get of the present upload. */
function plaintextAt(place: string): Buffer {
  const small = lab.api.files.get(`${place}.small`) ?? assert.fail(`no small part at ${place}`);
  const big = lab.cdn.uploads.find((present) => present.state === 'completed' && present.place === `${place}.big`);
  return decryptBuffer(Buffer.concat([small, big?.content ?? Buffer.alloc(0)]), KEY);
}

/** Changes each draft that is made from now on. */
function onDraft(change: (handle: FileHandle) => void): void {
  // The first file of an upload; the cache makes others when it publishes.
  hookedFs.onOpen(/\.part$/, (handle) => {
    hookedFs.restore();
    change(handle);
  });
}

const noDrafts = async () => assert.deepEqual(await lab.folder.names('.parts').catch(() => []), []);

describe('an upload', () => {
  for (const [when, place] of [
    ['before its file', 'before'],
    ['after its file', 'after'],
  ] as const) {
    it(`whose folder, ${when}, makes too long a key is refused, and leaves nothing`, async () => {
      const folder = Array<string>(4).fill('x'.repeat(255)).join('/');
      await assert.rejects(upload({ [place]: folder }), { code: 'validation_failed' });
      assert.deepEqual([...lab.api.files], []);
      assert.ok(lab.cdn.uploads.every(({ state }) => state === 'aborted'));
      await noDrafts();
    });
  }

  for (const [what, folder, place] of [
    ['without a folder', {}, 'models/m'],
    ['whose folder comes before its file', { before: 'a/b' }, 'a/b/m'],
    ['whose folder comes after its file', { after: 'a/b' }, 'a/b/m'],
  ] as const) {
    it(`${what} is stored whole at ${place}: on the CDN, with the API and in the cache`, async () => {
      await upload(folder, NEVER, LARGE);
      assert.ok(plaintextAt(place).equals(LARGE));
      assert.deepEqual(
        lab.cdn.uploads.map((present) => present.state),
        'after' in folder ? ['aborted', 'completed'] : ['completed'],
      );
      const copy = await readFile(path.join(lab.folder.root, `${place}.big`));
      assert.ok(copy.equals(lab.cdn.uploads.at(-1)?.content ?? Buffer.alloc(0)));
      const [, ...parts] = place.split('/').toReversed();
      const record = await lab.folder.record({ folder: parts.toReversed().join('/'), name: 'm' });
      const small = lab.api.files.get(`${place}.small`) ?? Buffer.alloc(0);
      const manifest = lab.cdn.manifests.get(`${place}.manifest`)?.bytes;
      assert.deepEqual(record, {
        bigLength: copy.length,
        smallSha256: sha256(small),
        chunks: digestsOf(copy),
        manifest,
        isPair: true,
      });
      await noDrafts();
    });
  }

  it('stores the small part before it completes the big one', async () => {
    lab.cdn.onStart = (started) => {
      started.beforeComplete = () => {
        assert.ok(lab.api.files.has('models/m.small'));
        return Promise.resolve();
      };
    };
    await upload();
    assert.ok(plaintextAt('models/m').equals(CONTENT));
  });

  it('fails without a trace when its items fail after the file', async () => {
    async function* broken(): ReturnType<typeof uploadItems> {
      yield* uploadItems(CONTENT);
      throw new LoaderError('client_closed', 'The client closed the connection.');
    }
    await assert.rejects(lab.uploads.upload('m', broken(), NEVER), { code: 'client_closed' });
    assert.deepEqual(
      lab.cdn.uploads.map(({ state }) => state),
      ['aborted'],
    );
    assert.equal(lab.api.files.size, 0);
    assert.deepEqual(await lab.folder.entries(), []);
    await noDrafts();
  });

  it('is not published when its client has left by then', async () => {
    const abort = new AbortController();
    async function* leaving(): ReturnType<typeof uploadItems> {
      yield* uploadItems(CONTENT);
      abort.abort(new LoaderError('client_closed', 'gone'));
    }
    await assert.rejects(lab.uploads.upload('m', leaving(), abort.signal), { code: 'client_closed' });
    assert.equal(lab.api.files.size, 0);
    await noDrafts();
  });

  it('puts the earlier small part back when the big one is not completed', async () => {
    lab.api.files.set('models/m.small', EARLIER);
    lab.cdn.onStart = (started) => {
      started.beforeComplete = () => Promise.reject(new LoaderError('cdn_error', 'no'));
    };
    await assert.rejects(upload(), { code: 'cdn_error' });
    assert.equal(lab.api.files.get('models/m.small'), EARLIER);
  });

  it('succeeds when only the answer of the CDN was lost', async () => {
    lab.cdn.onStart = (started) => {
      started.afterComplete = () => Promise.reject(new LoaderError('cdn_timeout', 'no'));
    };
    await upload();
    assert.ok(plaintextAt('models/m').equals(CONTENT));
  });

  it('fails when the CDN has lost it, and the earlier small part stands again', async () => {
    lab.api.files.set('models/m.small', EARLIER);
    lab.cdn.onStart = (started) => {
      started.beforeComplete = async () => {
        await started.abort();
      };
    };
    await assert.rejects(upload(), { code: 'cdn_error' });
    assert.equal(lab.api.files.get('models/m.small'), EARLIER);
    assert.deepEqual(await lab.folder.entries(), []);
  });

  it('succeeds when the CDN completes it only while it is being removed', async () => {
    lab.api.files.set('models/m.small', EARLIER);
    let completeLate: () => Promise<void> = () => Promise.resolve();
    lab.cdn.onStart = (started) => {
      started.beforeComplete = () => {
        started.beforeComplete = () => Promise.resolve();
        completeLate = () => started.complete();
        return Promise.reject(new LoaderError('cdn_timeout', 'no'));
      };
      started.beforeAbort = async () => {
        await new Promise((resolve) => setTimeout(resolve, 20));
        await completeLate();
      };
    };
    await upload();
    assert.ok(plaintextAt('models/m').equals(CONTENT));
  });

  it('is told that another one stands, and puts the small part of that back', async () => {
    const theirs = Buffer.from('of a crossing upload');
    const their = makeVersion({ smallSha256: sha256(theirs) });
    let looks = 0;
    lab.cdn.beforeLook = () => {
      looks++;
      // The other upload stores its small part before the first look, and completes its object before the second one.
      if (looks === 1) lab.api.files.set('models/m.small', theirs);
      if (looks === 2) lab.cdn.objects.set('models/m.big', their);
      return Promise.resolve();
    };
    await assert.rejects(upload(), { code: 'upload_superseded' });
    assert.equal(lab.api.files.get('models/m.small'), theirs);
    assert.deepEqual(await lab.folder.entries(), []);
  });

  it('puts back no small part but that of the upload that stands', async () => {
    const [theirs, third] = [Buffer.from('of a crossing upload'), Buffer.from('of a third one')];
    let looks = 0;
    lab.cdn.beforeLook = () => {
      looks++;
      if (looks === 1) lab.api.files.set('models/m.small', theirs);
      if (looks === 2) lab.cdn.objects.set('models/m.big', makeVersion({ smallSha256: sha256(third) }));
      if (looks === 2) lab.api.files.set('models/m.small', third);
      return Promise.resolve();
    };
    await assert.rejects(upload(), { code: 'upload_superseded' });
    assert.equal(lab.api.files.get('models/m.small'), third);
  });

  it('stores nothing when the earlier small part can not be asked for', async () => {
    lab.api.files.set('models/m.small', EARLIER);
    lab.api.beforeFetch = () => Promise.reject(new LoaderError('api_unreachable', 'no'));
    await assert.rejects(upload(), { code: 'api_unreachable' });
    assert.equal(lab.api.files.get('models/m.small'), EARLIER);
    assert.equal(lab.cdn.uploads.at(-1)?.state, 'aborted');
  });

  it('asks for the earlier small part while its last part is sent', { timeout: 5000 }, async () => {
    const asked = Promise.withResolvers<undefined>();
    let questions = 0;
    lab.api.beforeFetch = () => {
      questions++;
      asked.resolve(undefined);
      return Promise.resolve();
    };
    lab.cdn.onStart = (started) => {
      started.beforePart = (number) => (number === 2 ? asked.promise : Promise.resolve());
    };
    await upload();
    assert.equal(questions, 2, 'before and after the publication');
  });

  it('asks for it again when its last part took long: another upload may have ended', async (t) => {
    const asked = Promise.withResolvers<undefined>();
    lab.api.beforeFetch = () => {
      asked.resolve(undefined);
      return Promise.resolve();
    };
    lab.cdn.onStart = (started) => {
      started.beforePart = async (number) => {
        if (number === 1) return;
        await asked.promise;
        await setImmediate();
        const now = performance.now.bind(performance);
        t.mock.method(performance, 'now', () => now() + 2_000);
        lab.api.files.set('models/m.small', EARLIER);
      };
      started.beforeComplete = () => Promise.reject(new LoaderError('cdn_error', 'no'));
    };
    await assert.rejects(upload({}, NEVER, LARGE), { code: 'cdn_error' });
    assert.equal(lab.api.files.get('models/m.small'), EARLIER);
  });

  it('takes the place of an earlier small part that is damaged', async () => {
    lab.api.beforeFetch = () => {
      lab.api.beforeFetch = () => Promise.resolve();
      return Promise.reject(new LoaderError('envelope_invalid', 'The small part is damaged.'));
    };
    await upload();
    assert.ok(plaintextAt('models/m').equals(CONTENT));
  });

  it('stores its small part once more when a crossing one has replaced it', async () => {
    lab.cdn.beforeLook = () => {
      if (lab.api.files.get('models/m.small')?.length !== 4) lab.cdn.beforeLook = () => Promise.resolve();
      lab.api.files.set('models/m.small', Buffer.from('them'));
      return Promise.resolve();
    };
    await upload();
    assert.ok(plaintextAt('models/m').equals(CONTENT));
  });

  it('looks at both parts at once', { timeout: 5000 }, async () => {
    const asked = Promise.withResolvers<undefined>();
    lab.cdn.beforeLook = async () => {
      lab.api.beforeFetch = () => {
        asked.resolve(undefined);
        return Promise.resolve();
      };
      await asked.promise;
    };
    await upload();
    assert.ok(plaintextAt('models/m').equals(CONTENT));
  });

  it('fails with the failure of the CDN even when the earlier small part can not be put back', async () => {
    lab.api.files.set('models/m.small', EARLIER);
    lab.api.beforeStore = (_name, content) =>
      content === EARLIER ? Promise.reject(new LoaderError('api_unreachable', 'no')) : Promise.resolve();
    lab.cdn.onStart = (started) => {
      started.beforeComplete = () => Promise.reject(new LoaderError('cdn_error', 'no'));
    };
    await assert.rejects(upload(), { code: 'cdn_error' });
  });
});

describe('a slow disk', () => {
  it('is waited for when the API fails: the draft is not closed under its flush, and the API is named', async () => {
    const flushing = Promise.withResolvers<undefined>();
    const order: string[] = [];
    onDraft((handle) => {
      const [sync, close] = [handle.sync.bind(handle), handle.close.bind(handle)];
      Object.assign(handle, {
        sync: async () => {
          flushing.resolve(undefined);
          await new Promise((resolve) => setTimeout(resolve, 100));
          await sync();
          order.push('flushed');
        },
        close: async () => {
          order.push('closed');
          await close();
        },
      });
    });
    lab.api.beforeStore = async () => {
      await flushing.promise;
      order.push('the API failed');
      throw new LoaderError('api_error', 'The Resource API answered with status 500.');
    };
    await assert.rejects(upload(), { code: 'api_error' });
    // The first flush began with the first part.
    assert.deepEqual(order, ['the API failed', 'flushed', 'flushed', 'closed']);
    assert.equal(lab.cdn.uploads[0]?.state, 'aborted');
    await noDrafts();
  });

  it('that fails the flush costs the copy only', async () => {
    let flushes = 0;
    onDraft((handle) => {
      Object.assign(handle, {
        sync: () => {
          flushes++;
          return Promise.reject(systemError('EIO'));
        },
      });
    });
    await upload();
    assert.equal(flushes, 1);
    assert.ok(plaintextAt('models/m').equals(CONTENT));
    assert.deepEqual(await lab.folder.entries(), []);
    await noDrafts();
  });

  it('that takes no more bytes costs the copy only, and a folder after the file is then refused', async () => {
    const fill = (handle: FileHandle) => Object.assign(handle, { write: () => Promise.reject(systemError('ENOSPC')) });
    onDraft(fill);
    await upload({ before: 'a' });
    assert.ok(plaintextAt('a/m').equals(CONTENT));
    assert.deepEqual(await lab.folder.entries(), []);
    onDraft(fill);
    await assert.rejects(upload({ after: 'b' }), { code: 'cache_unusable', message: /send the folder field first/ });
    assert.equal(lab.cdn.uploads.at(-1)?.state, 'aborted');
    await noDrafts();
  });
});

describe('a draft that is sent again because its folder came late', () => {
  it('fails with cache_unusable when its file was cut meanwhile', async () => {
    async function* cutting(): ReturnType<typeof uploadItems> {
      yield* uploadItems(CONTENT);
      const [draft = ''] = await lab.folder.names('.parts');
      await truncate(lab.folder.path(draft, '.parts'), 1_000);
      yield { kind: 'folder', folder: 'a' };
    }
    await assert.rejects(lab.uploads.upload('m', cutting(), NEVER), { code: 'cache_unusable' });
    assert.deepEqual(
      lab.cdn.uploads.map(({ state }) => state),
      ['aborted', 'aborted'],
    );
    assert.equal(lab.api.files.size, 0);
    await noDrafts();
  });

  it('fails with the failure of the CDN when its parts are refused the second time', async () => {
    lab.cdn.onStart = (started) => {
      if (lab.cdn.uploads.length === 0) return;
      started.beforePart = () => Promise.reject(new LoaderError('cdn_error', 'no'));
    };
    await assert.rejects(upload({ after: 'a' }), { code: 'cdn_error' });
    assert.deepEqual(
      lab.cdn.uploads.map(({ state }) => state),
      ['aborted', 'aborted'],
    );
    await noDrafts();
  });
});
