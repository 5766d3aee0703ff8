import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { DraftFile } from '../../../src/files/draft-file.ts';

let folder = '';
let partPath = '';
let target = '';

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-part-'));
  partPath = path.join(folder, 'x.part');
  target = path.join(folder, 'model.big');
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe('a file in the making', () => {
  it('is readable by its owner only, and never takes the place of another', async () => {
    const file = await DraftFile.create(partPath);
    assert.equal((await stat(partPath)).mode & 0o777, 0o600);
    await assert.rejects(DraftFile.create(partPath), { code: 'EEXIST' });
    await file.close();
  });

  it('takes bytes at any position', async () => {
    const content = randomBytes(5000);
    const file = await DraftFile.create(partPath);
    await file.write(content.subarray(3000), 3000);
    await file.write(content.subarray(0, 3000), 0);
    await file.write(Buffer.alloc(0), 0);
    assert.ok((await readFile(partPath)).equals(content));
    await file.close();
  });

  for (const most of [1, 7, 10, 13]) {
    it(`is written in full when the system takes ${most} bytes at a time`, async (t) => {
      const content = randomBytes(40);
      const file = await DraftFile.create(partPath);
      const { handle } = file;
      const write = handle.write.bind(handle);
      t.mock.method(handle, 'write', async (bytes: Buffer, offset: number, length: number, position: number) => {
        return await write(bytes, offset, Math.min(most, length), position);
      });
      await file.write(content, 5);
      assert.ok((await readFile(partPath)).subarray(5).equals(content));
      await file.close();
    });
  }

  it('is not seen under its final name before it is published, and then whole', async () => {
    const file = await DraftFile.create(partPath);
    await file.write(Buffer.from('content'), 0);
    assert.deepEqual(await readdir(folder), ['x.part']);
    await file.publish(target);
    assert.deepEqual(await readdir(folder), ['model.big']);
    assert.equal(await readFile(target, 'utf8'), 'content');
    await file.close();
  });

  it('takes the place of the file that stood there, whose readers keep what they have', async () => {
    await writeFile(target, 'earlier');
    const file = await DraftFile.create(partPath);
    await file.write(Buffer.from('later'), 0);
    await file.publish(target);
    assert.equal(await readFile(target, 'utf8'), 'later');
    await file.close();
  });

  it('is synced to the disk before it gets its final name', async (t) => {
    const file = await DraftFile.create(partPath);
    let namesAtSync: string[] = [];
    const sync = file.handle.sync.bind(file.handle);
    t.mock.method(file.handle, 'sync', async () => {
      namesAtSync = await readdir(folder);
      await sync();
    });
    await file.publish(target);
    assert.deepEqual(namesAtSync, ['x.part']);
    await file.close();
  });

  it('is not published when it could not be synced', async (t) => {
    await writeFile(target, 'earlier');
    const file = await DraftFile.create(partPath);
    t.mock.method(file.handle, 'sync', () => Promise.reject(new Error('ENOSPC')));
    await assert.rejects(file.publish(target), /ENOSPC/);
    assert.equal(await readFile(target, 'utf8'), 'earlier');
    await file.discard();
    await file.close();
    assert.deepEqual(await readdir(folder), ['model.big']);
  });

  it('leaves nothing when it is discarded, and stays readable until it is closed', async () => {
    const file = await DraftFile.create(partPath);
    await file.write(Buffer.from('content'), 0);
    await file.discard();
    assert.deepEqual(await readdir(folder), []);
    const { buffer } = await file.handle.read(Buffer.alloc(7), 0, 7, 0);
    assert.equal(buffer.toString(), 'content');
    await file.close();
  });

  it('stays when it is discarded after it was published', async () => {
    const file = await DraftFile.create(partPath);
    await file.publish(target);
    await writeFile(partPath, 'the name may be another file by now');
    await file.discard();
    assert.deepEqual((await readdir(folder)).sort(), ['model.big', 'x.part']);
    await file.close();
  });

  it('may be discarded twice, or after somebody else removed it', async () => {
    const file = await DraftFile.create(partPath);
    await rm(partPath);
    await file.discard();
    await file.discard();
    await file.close();
  });

  it('can be discarded after a publication that failed', async () => {
    await mkdir(target);
    const file = await DraftFile.create(partPath);
    await assert.rejects(file.publish(target));
    await file.discard();
    await file.close();
    assert.deepEqual(await readdir(folder), ['model.big']);
  });
});

describe('the disposal of a file in the making', () => {
  it('closes and removes it', async () => {
    let handle: FileHandle;
    {
      await using file = await DraftFile.create(partPath);
      ({ handle } = file);
    }
    assert.equal(handle.fd, -1);
    assert.deepEqual(await readdir(folder), []);
  });

  it('closes it and leaves what was published', async () => {
    let handle: FileHandle;
    {
      await using file = await DraftFile.create(partPath);
      ({ handle } = file);
      await file.publish(target);
    }
    assert.equal(handle.fd, -1);
    assert.deepEqual(await readdir(folder), ['model.big']);
  });

  it('never fails, so that it hides no other error', async (t) => {
    const failing = async () => {
      await using file = await DraftFile.create(partPath);
      const close = file.handle.close.bind(file.handle);
      t.mock.method(file.handle, 'close', async () => {
        await close();
        throw new Error('EIO');
      });
      throw new Error('the true error');
    };
    await assert.rejects(failing(), { message: 'the true error' });
    assert.deepEqual(await readdir(folder), []);
  });
});

describe('a sync that is begun early', () => {
  it('goes on while bytes are written, one at a time, and the last one waits for it', async (t) => {
    await using file = await DraftFile.create(partPath);
    const gates: PromiseWithResolvers<undefined>[] = [];
    t.mock.method(file.handle, 'sync', async () => {
      const gate = Promise.withResolvers<undefined>();
      gates.push(gate);
      await gate.promise;
    });
    file.startSync();
    await file.write(Buffer.from('content'), 0);
    file.startSync();
    assert.equal(gates.length, 1);
    const synced = file.sync();
    gates[0]?.resolve(undefined);
    await setImmediate();
    assert.equal(gates.length, 2, 'bytes that came after its beginning may not be on the disk');
    gates[1]?.resolve(undefined);
    await synced;
  });

  it('is begun again when it has ended', async (t) => {
    await using file = await DraftFile.create(partPath);
    const sync = t.mock.method(file.handle, 'sync');
    file.startSync();
    await file.sync();
    file.startSync();
    await file.sync();
    assert.equal(sync.mock.callCount(), 4);
  });

  it('tells its failure by the last one, since the system tells it once', async (t) => {
    await using file = await DraftFile.create(partPath);
    let syncs = 0;
    t.mock.method(file.handle, 'sync', () => (syncs++ === 0 ? Promise.reject(new Error('EIO')) : Promise.resolve()));
    file.startSync();
    await setImmediate();
    file.startSync();
    await assert.rejects(file.publish(target), { message: 'EIO' });
    assert.deepEqual(await readdir(folder), ['x.part']);
  });
});

describe('a publication of a new file', () => {
  it('gives the file its name, and the mode that was asked for', async () => {
    const umask = process.umask(0o022);
    try {
      await using file = await DraftFile.create(partPath, 0o666);
      await file.write(Buffer.from('content'), 0);
      await file.publishNew(target);
    } finally {
      process.umask(umask);
    }
    assert.deepEqual(await readdir(folder), ['model.big']);
    assert.equal(await readFile(target, 'utf8'), 'content');
    assert.equal((await stat(target)).mode & 0o777, 0o644);
  });

  it('never takes the place of another', async () => {
    await writeFile(target, 'earlier');
    {
      await using file = await DraftFile.create(partPath);
      await assert.rejects(file.publishNew(target), { code: 'EEXIST' });
    }
    assert.equal(await readFile(target, 'utf8'), 'earlier');
    assert.deepEqual(await readdir(folder), ['model.big']);
  });
});
