import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chown,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { Device } from '../../support/device.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';
import { eventually } from '../../../lab/waiting.ts';

const content = randomBytes(10_000_000);
const digest = sha256(content);
/** Its length is no multiple of 16, so the envelope has an IV and is rounded up. */
const BIG_LENGTH = 16 + 10_000_000 + 16 - 3072;
const NOBODY = 65_534;

describe('a load whose copy in the cache', { skip: S3_SKIP }, () => {
  let device: Device;
  let big: string;
  before(async () => {
    device = await Device.start();
    await device.login();
    big = device.bigPath('model');
  });
  beforeEach(async () => {
    device.heal();
    await device.clearCache();
    await device.upload('model', content);
    device.heal();
  });
  after(() => device.stop());

  /** The caller gets the model from the CDN, and the cache is whole again after it. */
  async function expectFromCdn(): Promise<void> {
    assert.equal((await digestBody(await device.loader.load('model'))).sha256, digest);
    assert.notEqual(device.s3Proxy.requests.length, 0, 'the CDN was not asked');
    await device.settled();
    assert.equal((await stat(big)).size, BIG_LENGTH);
    device.heal();
    assert.equal((await digestBody(await device.loader.load('model'))).sha256, digest);
    assert.equal(device.s3Proxy.requests.length, 0, 'the second load did not come from the cache');
  }

  async function expectFromCache(): Promise<void> {
    assert.equal((await digestBody(await device.loader.load('model'))).sha256, digest);
    assert.equal(device.s3Proxy.requests.length, 0);
  }

  it('is good comes from there alone', async () => {
    await expectFromCache();
  });

  it('was uploaded, or came from the CDN, has the manifest of its version', async () => {
    const { bytes } = await device.readObject('models/model.manifest');
    assert.ok((await readFile(`${big}.dsse`)).equals(bytes));
    await device.clearCache();
    await expectFromCdn();
    assert.ok((await readFile(`${big}.dsse`)).equals(bytes));
  });

  it('counts as loaded when it was', async () => {
    await utimes(big, 1000, 1000);
    await expectFromCache();
    assert.ok((await stat(big)).mtimeMs > Date.now() - 60_000);
  });

  it('was truncated comes from the CDN', async () => {
    await truncate(big, 5_000_000);
    await expectFromCdn();
  });

  it('was truncated by a block, and has no record, comes from the CDN', async () => {
    await truncate(big, (await stat(big)).size - 16);
    await rm(`${big}.dsse`);
    await expectFromCdn();
  });

  it('was emptied comes from the CDN', async () => {
    await truncate(big, 0);
    await rm(`${big}.dsse`);
    await expectFromCdn();
  });

  it('has a flipped last block gets that chunk from the CDN', async () => {
    const file = await open(big, 'r+');
    const { size } = await file.stat();
    const last = Buffer.alloc(1);
    await file.read(last, 0, 1, size - 1);
    await file.write(Buffer.from([(last[0] ?? 0) ^ 0xff]), 0, 1, size - 1);
    await file.close();
    await expectFromCdn();
    assert.equal(device.s3Proxy.requests.length, 0);
  });

  it('has a folder of other resources in its place comes from the CDN, and the folder stays', async () => {
    await rm(big);
    await mkdir(path.join(big, 'inner'), { recursive: true });
    assert.equal((await digestBody(await device.loader.load('model'))).sha256, digest);
    await device.settled();
    assert.deepEqual(await readdir(big), ['inner']);
    assert.ok(!(await readdir(path.dirname(big))).some((name) => name.endsWith('.bad')));
  });

  it('was replaced by a symbolic link that points out of the cache comes from the CDN', async () => {
    const outside = path.join(device.folder, 'outside');
    await rename(big, outside);
    await symlink(outside, big);
    await expectFromCdn();
    assert.equal((await stat(outside)).size > 0, true, 'the file behind the link was touched');
  });

  it('was replaced by a FIFO comes from the CDN', async () => {
    await rm(big);
    execFileSync('mkfifo', [big]);
    await expectFromCdn();
  });

  it('lies in a folder that is a symbolic link out of the cache is loaded past the cache', async () => {
    const outside = path.join(device.folder, 'outside-folder');
    await rename(path.dirname(big), outside);
    const before = await readdir(outside);
    await symlink(outside, path.dirname(big));
    assert.equal((await digestBody(await device.loader.load('model'))).sha256, digest);
    assert.notEqual(device.s3Proxy.requests.length, 0);
    assert.deepEqual(await readdir(outside), before, 'something was written outside of the cache');
    await rm(path.dirname(big));
  });

  it('belongs to an older small part comes from the CDN', async () => {
    const files = [big, `${big}.dsse`];
    const earlier = await Promise.all(files.map((file) => readFile(file)));
    await device.upload('model', content);
    for (const [index, file] of files.entries()) await writeFile(file, earlier[index] ?? '');
    device.heal();
    await expectFromCdn();
  });

  it('has a damaged record comes from the CDN', async () => {
    await writeFile(`${big}.dsse`, '{"payloadType":"appl');
    await expectFromCdn();
  });

  it('has no record, as an older Loader left it, is compared with the object once, and used', async () => {
    await rm(`${big}.dsse`);
    assert.equal((await digestBody(await device.loader.load('model'))).sha256, digest);
    assert.deepEqual(
      device.s3Proxy.requests.map(({ method }) => method),
      ['HEAD'],
    );
    device.heal();
    await expectFromCache();
  });

  it('is bad, with the CDN down, is answered with an error and never with its bytes', async () => {
    await truncate(big, 5_000_000);
    device.s3Proxy.fault = () => ({ kind: 'refuse' });
    const response = await device.loader.load('model');
    assert.equal(response.status, 500);
    await response.body?.cancel();
  });

  it('is good stays, when the client leaves before it is opened', async () => {
    device.apiProxy.fault = () => ({ kind: 'delay', ms: 150 });
    for (const afterMs of [100, 140, 150, 155, 160, 170]) {
      const abort = new AbortController();
      const loading = fetch(`${device.loader.url}/load/model`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ filename: 'model', folder: 'models' }),
        signal: abort.signal,
      });
      setTimeout(() => abort.abort(), afterMs);
      await loading.then((response) => response.arrayBuffer()).catch(() => undefined);
    }
    await device.settled();
    assert.equal((await stat(big)).size, BIG_LENGTH);
  });

  it('was left unfinished by a killed Loader is removed at the start', async () => {
    await mkdir(path.join(device.cacheFolder, '.parts'), { recursive: true });
    await writeFile(path.join(device.cacheFolder, '.parts', 'left-over.part'), 'half');
    await device.restartLoader('SIGKILL');
    await device.login();
    assert.deepEqual(await device.unfinishedFiles(), []);
  });
});

const canMount = process.getuid?.() === 0;
const ROOT_SKIP = S3_SKIP !== false ? S3_SKIP : canMount ? false : 'it needs root, to mount a small file system';

describe('a cache', { skip: ROOT_SKIP }, () => {
  it('whose disk is full still lets the caller have the model, and leaves nothing behind', async () => {
    const device = await Device.start();
    const disk = path.join(device.folder, 'models');
    await mkdir(disk, { recursive: true });
    try {
      await device.login();
      await device.upload('model', content);
      await device.clearCache();
      await mkdir(disk, { recursive: true });
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', disk]);
      assert.deepEqual(await digestBody(await device.loader.load('model')), { sha256: digest, length: content.length });
      await eventually(async () => (await device.unfinishedFiles()).length === 0);
      assert.match(device.loader.log(), /The cache has no room: its disk has \d MiB free, and 10 MiB are needed/);
      // And the other way: an upload does without its copy.
      await device.upload('other', content);
      assert.deepEqual(await device.unfinishedFiles(), []);
      assert.equal((await digestBody(await device.loader.load('other'))).sha256, digest);
      // Where the copy would be needed, the error says what to do.
      const answer = await device.loader.upload('late', content, 'elsewhere');
      assert.deepEqual([answer.status, answer.body.code], [500, 'cache_unusable']);
      assert.match(String(answer.body.detail), /folder field first/);
      assert.deepEqual(await device.pendingUploads(), []);
      await eventually(() => device.loader.openFilesUnder(device.folder).length === 0);
    } finally {
      execFileSync('umount', ['-l', disk]);
      await device.stop();
    }
  });

  it('with a file that the Loader may not read turns to the CDN', async () => {
    const unprivileged = await Device.start({ uid: NOBODY });
    try {
      execFileSync('chmod', ['755', unprivileged.folder]);
      await mkdir(path.join(unprivileged.cacheFolder, 'models'), { recursive: true });
      await chown(unprivileged.cacheFolder, NOBODY, NOBODY);
      await chown(path.join(unprivileged.cacheFolder, 'models'), NOBODY, NOBODY);
      await unprivileged.login();
      await unprivileged.upload('model', content);
      unprivileged.heal();
      const big = unprivileged.bigPath('model');
      await chown(big, 0, 0);
      execFileSync('chmod', ['600', big]);
      assert.equal((await digestBody(await unprivileged.loader.load('model'))).sha256, digest);
      assert.notEqual(unprivileged.s3Proxy.requests.length, 0);
      // A folder that may not be written costs the copy only.
      await unprivileged.clearCache();
      execFileSync('chmod', ['755', unprivileged.folder]);
      assert.equal((await digestBody(await unprivileged.loader.load('model'))).sha256, digest);
      assert.match(unprivileged.loader.log(), /EACCES/);
    } finally {
      await unprivileged.stop();
    }
  });
});
