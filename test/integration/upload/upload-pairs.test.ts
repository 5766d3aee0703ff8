import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Device } from '../../support/device.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';
import { FORM_END, formHead, partHead, RawConnection } from '../../../lab/faults/raw-http.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { eventually } from '../../../lab/waiting.ts';

/** A run of the tests takes few, the campaign (npm run test:pairs) 200 of each. */
const ROUNDS = Number(process.env['LOADER_TEST_PAIRS'] ?? 5);

/** For one test, in ms. */
const TIMEOUT = { timeout: 120_000 + ROUNDS * 20_000 };
/** By how much the ends of two crossing uploads differ at the most, in ms. */
const CROSSING_MS = 40;
/** How long after its first step a publication may still be under way, in ms. */
const PUBLICATION_MS = 120;

/** All versions have this length, so that only their bytes tell a mixture. Two parts on the CDN. */
const LENGTH = 9_000_000;

/** What a load gave: the number of a version, or the code of its failure. A mixture fails the test. */
type Loaded = number | string;

/** How often each outcome was seen, for the report of the campaign. */
class Tally {
  readonly #counts = new Map<string, number>();

  count(outcome: string): void {
    this.#counts.set(outcome, (this.#counts.get(outcome) ?? 0) + 1);
  }

  get text(): string {
    return [...this.#counts].map(([outcome, count]) => `${count} ${outcome}`).join(', ');
  }
}

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
    // No timeout is tried here, and a busy machine must cause none.
    const env = { UPLOAD_SECOND_LOOK_MS: '1500', STALL_TIMEOUT_MS: '10000', UPSTREAM_TIMEOUT_MS: '10000' };
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

  /** Sends all of an upload but its end. The function that is returned sends that, too. */
  async function almostUpload(
    device: Device,
    name: string,
    content: Buffer<ArrayBuffer>,
  ): Promise<() => Promise<string>> {
    const connection = await RawConnection.open(device.loader.port);
    const head = partHead('data', name);
    const length = head.length + content.length + FORM_END.length;
    await connection.send(formHead(`/upload/${name}`, length) + head);
    await connection.send(content);
    return async () => {
      await connection.send(FORM_END);
      const { status, body } = await connection.answer(60_000);
      connection.close();
      return status === 200 ? 'ok' : (body.code ?? 'no code');
    };
  }

  /** Resolves when an upload of the device has begun to publish, or has ended. */
  async function publishing(device: Device, uploading: Promise<string>): Promise<void> {
    const ended = uploading.then(() => undefined);
    const hasBegun = async () => {
      const texts = (await device.journal()).map((file) =>
        readFile(path.join(device.stateFolder, 'uploads', file), 'utf8').catch(() => ''),
      );
      return (await Promise.all(texts)).some((text) => text.includes('"publication"'));
    };
    await Promise.race([ended, eventually(hasBegun, { timeoutMs: 20_000, pollMs: 1 })]);
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
    async (t) => {
      const tally = new Tally();
      const versions = new Versions('killed');
      const first = versions.make();
      const beganAt = performance.now();
      assert.equal(await upload(uploader, versions.name, first.content), 'ok');
      const uploadMs = performance.now() - beganAt;
      let standing = first.number;
      for (let round = 0; round < ROUNDS; round++) {
        const next = versions.make();
        const uploading = upload(uploader, versions.name, next.content);
        // Every second one while it publishes, which takes a small share of an upload.
        if (round % 2 === 0) await sleep(Math.random() * uploadMs * 1.1);
        else await publishing(uploader, uploading).then(() => sleep(Math.random() * PUBLICATION_MS));
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
        const isCompleted = uploader.loader.logLines('An upload that was broken off was completed').length > 0;
        const found = await loadCold(other, versions);
        assert.ok(found === next.number || (found === standing && answer !== 'ok'), `${found} after ${answer}`);
        assert.equal(await loadCold(uploader, versions), found);
        standing = found;
        const end = found === next.number ? 'stands' : 'was removed';
        tally.count(answer === 'ok' ? 'answered' : isCompleted ? 'completed by the next start' : end);
        if (meanwhile === 'upload_unfinished') tally.count('between its parts');
      }
      t.diagnostic(`killed uploads: ${tally.text}`);
    },
  );

  it(
    'stay so when two devices upload at the same time: one version stands whole, and a lost one was told',
    TIMEOUT,
    async (t) => {
      const tally = new Tally();
      const crossings: { versions: Versions; numbers: number[]; answers: string[] }[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const versions = new Versions(`crossing-${round}`);
        const [ours, theirs] = [versions.make(), versions.make()];
        const uploads = [
          await almostUpload(uploader, versions.name, ours.content),
          await almostUpload(other, versions.name, theirs.content),
        ];
        const answers = await Promise.all(
          uploads.map(async (end) => sleep(Math.random() * CROSSING_MS).then(async () => await end())),
        );
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
        tally.count(answers[1 - standing] === 'ok' ? 'one after the other' : 'told');
      }
      t.diagnostic(`crossing uploads: ${tally.text}`);
    },
  );

  it('stay so for a device that loads beside uploads, and in its cache', TIMEOUT, async (t) => {
    const versions = new Versions('beside');
    assert.equal(await upload(uploader, versions.name, versions.make().content), 'ok');
    const done = new AbortController();
    const uploads = (async () => {
      for (let round = 0; round < ROUNDS; round++) {
        assert.equal(await upload(uploader, versions.name, versions.make().content), 'ok');
      }
      done.abort();
    })();
    const seen = new Set<Loaded>();
    const tally = new Tally();
    const loads = (async () => {
      while (!done.signal.aborted) {
        const loaded = await versions.load(other);
        seen.add(loaded);
        tally.count(typeof loaded === 'number' ? 'whole' : loaded);
      }
    })();
    await Promise.all([uploads, loads]);
    await ended();
    assert.equal(await versions.load(other), ROUNDS);
    assert.equal(await versions.load(uploader), ROUNDS);
    t.diagnostic(`loads beside uploads: ${tally.text}`);
    const failures = [...seen].filter((loaded) => typeof loaded === 'string');
    for (const failure of failures) {
      assert.ok(['broken off', 'cdn_object_changed', 'upload_unfinished'].includes(failure), failure);
    }
  });
});
