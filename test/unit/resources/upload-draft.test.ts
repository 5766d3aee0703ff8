import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { LoaderError } from '../../../src/errors.ts';
import { Parallelism } from '../../../src/net/parallelism.ts';
import { UploadDraft } from '../../../src/resources/upload-draft.ts';
import { decryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { sha256 } from '../../../lab/sha256.ts';
import { digestsOf } from '../../support/cache-folder.ts';
import { inChunks, KEY, UploadLab } from '../../support/upload-lab.ts';

/** Two parts. */
const CONTENT = randomBytes(9_000_000);
const RESOURCE = { folder: 'models', name: 'm' };

let lab: UploadLab;

beforeEach(async () => {
  lab = await UploadLab.create();
});

afterEach(async () => {
  await lab[Symbol.asyncDispose]();
});

async function create(content: AsyncIterable<Buffer> = inChunks(CONTENT)): Promise<UploadDraft> {
  const { cache, logger } = lab.folder;
  const { session, journal, manifests, memory } = lab;
  const parallelism = new Parallelism();
  const options = { session, cache, journal, manifests, memory, parallelism, logger, signal: NEVER };
  return await UploadDraft.create(RESOURCE, content, options);
}

const states = () => lab.cdn.uploads.map(({ state }) => state);

describe('a draft', () => {
  it('has the envelope of the plaintext, in two parts, and no client can see it', async () => {
    await using draft = await create();
    const content = lab.cdn.uploads.at(-1)?.content ?? Buffer.alloc(0);
    assert.deepEqual(draft.facts, {
      length: CONTENT.length,
      sha256: sha256(CONTENT),
      small: { length: draft.small.length, sha256: sha256(draft.small) },
      big: { length: content.length, ...digestsOf(content) },
    });
    assert.ok(decryptBuffer(Buffer.concat([draft.small, content]), KEY).equals(CONTENT));
    assert.deepEqual(states(), ['open']);
    assert.equal((await lab.folder.names('.parts')).length, 1);
    assert.deepEqual(await lab.folder.entries(), []);
  });

  it('leaves nothing when it is disposed of', async () => {
    await (await create())[Symbol.asyncDispose]();
    assert.deepEqual(states(), ['aborted']);
    assert.deepEqual(await lab.folder.names('.parts'), []);
  });

  it('is not aborted after its publication', async () => {
    {
      await using draft = await create();
      await draft.publish();
    }
    assert.deepEqual(states(), ['completed']);
  });

  it('leaves nothing when the plaintext fails', async () => {
    async function* broken(): AsyncGenerator<Buffer, void, undefined> {
      yield* inChunks(CONTENT);
      throw new LoaderError('client_stalled', 'no');
    }
    await assert.rejects(create(broken()), { code: 'client_stalled' });
    assert.deepEqual(states(), ['aborted']);
    assert.deepEqual(await lab.folder.names('.parts'), []);
  });

  it('never fails in its disposal, which tells the failure to the log', async () => {
    const draft = await create();
    const upload = lab.cdn.uploads.at(-1) ?? assert.fail('no upload was started');
    upload.beforeAbort = () => Promise.reject(new LoaderError('cdn_unreachable', 'no'));
    await draft[Symbol.asyncDispose]();
    assert.deepEqual(states(), ['open']);
    assert.deepEqual(await lab.folder.names('.parts'), []);
  });

  it('aborts no upload while a part of it is on its way', async () => {
    lab.cdn.onStart = (upload) => {
      let isSending = false;
      upload.beforePart = async (number) => {
        if (number === 2) throw new LoaderError('cdn_error', 'no');
        isSending = true;
        await new Promise((resolve) => setTimeout(resolve, 50));
        isSending = false;
      };
      upload.beforeAbort = () => {
        assert.ok(!isSending, 'the part would stay in the bucket');
        return Promise.resolve();
      };
    };
    await assert.rejects(create(), { code: 'cdn_error' });
    assert.deepEqual(states(), ['aborted']);
  });
});
