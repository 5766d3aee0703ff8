import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Device } from '../../support/device.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { eventually } from '../../../lab/waiting.ts';

/** A run of the tests takes few, the campaign (npm run test:pairs) 200 of each. */
const ROUNDS = Number(process.env['LOADER_TEST_PAIRS'] ?? 5);

/** For one test, in ms. */
const TIMEOUT = { timeout: 120_000 + ROUNDS * 20_000 };

/** All versions have this length, so that only their bytes tell a mixture. Two parts on the CDN. */
const LENGTH = 9_000_000;

/** What a load gave: the number of a version, or the code of its failure. A mixture fails the test. */
type Loaded = number | string;

/** Versions of one resource, and what loads of it give. */
class Versions {
  readonly name: string;
  readonly #digests: string[] = [];

  constructor(name: string) {
    this.name = name;
  }

  make(): { readonly number: number; readonly content: Buffer<ArrayBuffer> } {
    const content = randomBytes(LENGTH);
    return { number: this.#digests.push(sha256(content)) - 1, content };
  }

  async load(device: Device): Promise<Loaded> {
    const response = await device.loader.load(this.name);
    if (response.status !== 200) return (await device.loader.readJson(response)).body.code ?? 'no code';
    try {
      const body = await digestBody(response);
      const version = this.#digests.indexOf(body.sha256);
      assert.notEqual(version, -1, 'a mixture was served');
      return version;
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      return 'broken off';
    }
  }
}

describe('uploads whose two parts must stay one version', { skip: S3_SKIP }, () => {
  let uploader: Device;
  let other: Device;
  before(async () => {
    const env = { UPLOAD_SECOND_LOOK_MS: '1500' };
    uploader = await Device.start({ env });
    other = await Device.start({ env, sharing: uploader });
    await Promise.all([uploader.login(), other.login()]);
  });
  after(async () => {
    await other.stop();
    await uploader.stop();
  });

  async function upload(device: Device, name: string, content: Buffer<ArrayBuffer>): Promise<string> {
    try {
      const answer = await device.loader.upload(name, content);
      return answer.status === 200 ? 'ok' : (answer.body.code ?? 'no code');
    } catch {
      return 'died';
    }
  }

  /** Loads from the CDN. */
  async function loadCold(device: Device, versions: Versions): Promise<Loaded> {
    await rm(device.bigPath(versions.name), { force: true });
    return await versions.load(device);
  }

  /** Nothing is left of uploads, in the journals or in the bucket. */
  async function ended(): Promise<void> {
    await eventually(async () => (await uploader.journal()).length + (await other.journal()).length === 0, {
      timeoutMs: 30_000,
    });
    assert.deepEqual(await uploader.pendingUploads(), []);
  }

  it(
    'stay so when the uploader is killed at any moment: a version stands whole, and nothing is left',
    TIMEOUT,
    async () => {
      const versions = new Versions('killed');
      const first = versions.make();
      const beganAt = performance.now();
      assert.equal(await upload(uploader, versions.name, first.content), 'ok');
      const uploadMs = performance.now() - beganAt;
      let standing = first.number;
      for (let round = 0; round < ROUNDS; round++) {
        const next = versions.make();
        const uploading = upload(uploader, versions.name, next.content);
        await sleep(Math.random() * uploadMs * 1.1);
        await uploader.loader.stop('SIGKILL');
        const answer = await uploading;
        const meanwhile = await loadCold(other, versions);
        assert.ok(
          meanwhile === standing || meanwhile === next.number || meanwhile === 'upload_unfinished',
          `the other device got ${meanwhile}`,
        );
        await uploader.startLoader();
        await uploader.login();
        await ended();
        const found = await loadCold(other, versions);
        assert.ok(found === next.number || (found === standing && answer !== 'ok'), `${found} after ${answer}`);
        assert.equal(await loadCold(uploader, versions), found);
        standing = found;
      }
    },
  );

  it(
    'stay so when two devices upload at the same time: one version stands whole, and a lost one was told',
    TIMEOUT,
    async () => {
      const crossings: { versions: Versions; numbers: number[]; answers: string[] }[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const versions = new Versions(`crossing-${round}`);
        const [ours, theirs] = [versions.make(), versions.make()];
        const answers = await Promise.all([
          upload(uploader, versions.name, ours.content),
          sleep(Math.random() * 30).then(() => upload(other, versions.name, theirs.content)),
        ]);
        for (const answer of answers) assert.ok(answer === 'ok' || answer === 'upload_superseded', answer);
        crossings.push({ versions, numbers: [ours.number, theirs.number], answers });
      }
      await ended();
      for (const { versions, numbers, answers } of crossings) {
        const found = await loadCold(other, versions);
        const standing = numbers.findIndex((number) => number === found);
        assert.notEqual(standing, -1, `${found} after ${answers.join()}`);
        assert.equal(answers[standing], 'ok', 'the version that stands was told to be lost');
        assert.equal(await loadCold(uploader, versions), found);
      }
    },
  );

  it('stay so for a device that loads beside uploads, and in its cache', TIMEOUT, async () => {
    const versions = new Versions('beside');
    assert.equal(await upload(uploader, versions.name, versions.make().content), 'ok');
    const done = new AbortController();
    const uploads = (async () => {
      for (let round = 0; round < ROUNDS; round++) {
        assert.equal(await upload(uploader, versions.name, versions.make().content), 'ok');
      }
      done.abort();
    })();
    const seen = new Map<Loaded, number>();
    const loads = (async () => {
      while (!done.signal.aborted) {
        const loaded = await versions.load(other);
        seen.set(loaded, (seen.get(loaded) ?? 0) + 1);
      }
    })();
    await Promise.all([uploads, loads]);
    await ended();
    assert.equal(await versions.load(other), ROUNDS);
    assert.equal(await versions.load(uploader), ROUNDS);
    const failures = [...seen.keys()].filter((loaded) => typeof loaded === 'string');
    for (const failure of failures) {
      assert.ok(['broken off', 'cdn_object_changed', 'upload_unfinished'].includes(failure), failure);
    }
  });
});
