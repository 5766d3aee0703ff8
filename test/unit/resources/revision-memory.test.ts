import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { createLogger } from '../../../src/log/logger.ts';
import { RevisionMemory, revisionPath } from '../../../src/resources/revision-memory.ts';

const RESOURCE = { folder: 'models', name: 'm' };
const [LOW, HIGH] = ['a'.repeat(64), 'b'.repeat(64)];
const logger = createLogger({ level: 'silent' });

let stateDir = '';
let memory: RevisionMemory;

beforeEach(async () => {
  stateDir = await mkdtemp(path.join(tmpdir(), 'loader-revisions-'));
  memory = new RevisionMemory(stateDir, logger);
});

afterEach(() => rm(stateDir, { recursive: true }));

const accept = (revision: number, payloadSha256 = LOW, resource = RESOURCE) =>
  memory.accept(resource, { revision, payloadSha256 });
const OUTDATED = { name: 'LoaderError', code: 'manifest_outdated' };

describe('the highest revision of a resource', () => {
  it('never goes back, over a restart too', async () => {
    assert.equal(await memory.highest(RESOURCE), undefined);
    await accept(5);
    await accept(7);
    await assert.rejects(accept(6), OUTDATED);
    memory = new RevisionMemory(stateDir, logger);
    await assert.rejects(accept(6), OUTDATED);
    await accept(7);
    assert.deepEqual(await memory.highest(RESOURCE), { revision: 7, payloadSha256: LOW });
  });

  it('is told apart from another of its number by the digest of its payload', async () => {
    await accept(5, LOW);
    await accept(5, HIGH);
    await assert.rejects(accept(5, LOW), OUTDATED);
  });

  it('is that of one resource alone', async () => {
    await accept(5);
    await accept(1, LOW, { folder: 'models', name: 'other' });
    await accept(1, LOW, { folder: 'other', name: 'm' });
    assert.equal((await readdir(path.join(stateDir, 'revisions'))).length, 3);
  });

  it('is the highest of many that come at once', async () => {
    const outcomes = await Promise.allSettled([3, 1, 4, 1, 5, 9, 2, 6].map((revision) => accept(revision)));
    assert.ok(outcomes.some(({ status }) => status === 'fulfilled'));
    assert.equal((await memory.highest(RESOURCE))?.revision, 9);
  });

  it('is unknown when its file is damaged, and then any is accepted', async () => {
    const file = revisionPath(stateDir, RESOURCE);
    for (const change of [
      (text: string) => text.replace('"revision":5', '"revision":9'),
      (text: string) => text.slice(0, 20),
      () => '',
    ]) {
      await accept(5);
      await writeFile(file, change(await readFile(file, 'utf8')));
      assert.equal(await memory.highest(RESOURCE), undefined);
      await accept(1);
      await rm(file);
    }
  });

  it('is kept in memory where the disk takes nothing', async () => {
    const file = path.join(stateDir, 'file');
    await writeFile(file, '');
    memory = new RevisionMemory(path.join(file, 'state'), logger); // No folder can be made there.
    await accept(5);
    await assert.rejects(accept(4), OUTDATED);
    await accept(6);
    assert.equal((await memory.highest(RESOURCE))?.revision, 6);
  });

  it('can be removed by hand while the Loader runs', async () => {
    await accept(5);
    await rm(revisionPath(stateDir, RESOURCE));
    await accept(4);
    assert.equal((await memory.highest(RESOURCE))?.revision, 4);
  });
});
