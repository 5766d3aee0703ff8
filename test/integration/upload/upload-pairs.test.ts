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
/** Of crossing uploads: one part, since only their ends cross. */
const CROSSING_LENGTH = 500_000;
/** By how much the ends of two crossing uploads differ at the most, in ms. */
const CROSSING_MS = 40;
/** How long after its first step a publication may still be under way, in ms. */
const PUBLICATION_MS = 120;

/** So many uploads are under way when the Loader is killed, each at a moment of its own. */
const UPLOADS_A_KILL = 4;

/** All versions have this length, so that only their bytes tell a mixture. Two parts on the CDN. */
const LENGTH = 9_000_000;

/** What a load gave: the number of a version, or the code of its failure. A mixture fails the test. */
type Loaded = number | string;

interface Version {
  /** Of the resource. */
  readonly name: string;
  readonly number: number;
  readonly content: Buffer<ArrayBuffer>;
}

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

  make(length = LENGTH): Version {
    const content = randomBytes(length);
    return { name: this.name, number: this.#digests.push(sha256(content)) - 1, content };
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
    // A Loader that ends by itself leaves its compiled code for the next starts.
    await uploader.restartLoader();
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

  /** Resolves when one of the uploads of the device has begun to publish, or all have ended. */
  async function publishing(device: Device, uploading: readonly Promise<string>[]): Promise<void> {
    const ended = Promise.all(uploading);
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
      const resources = Array.from({ length: UPLOADS_A_KILL }, (_, index) => new Versions(`killed-${index}`));
      const standing = resources.map((versions) => versions.make());
      const beganAt = performance.now();
      const firsts = standing.map(async ({ name, content }) => await upload(uploader, name, content));
      assert.deepEqual(new Set(await Promise.all(firsts)), new Set(['ok']));
      const uploadMs = performance.now() - beganAt;
      for (let round = 0; round * UPLOADS_A_KILL < ROUNDS; round++) {
        const nexts = resources.map((versions) => versions.make());
        const uploading = nexts.map(async ({ name, content }, index) => {
          await sleep((index / UPLOADS_A_KILL) * Math.random() * uploadMs);
          return await upload(uploader, name, content);
        });
        // In every second round while one of them publishes, which takes a small share of an upload.
        if (round % 2 === 0) await sleep(Math.random() * uploadMs * 1.5);
        else await publishing(uploader, uploading).then(() => sleep(Math.random() * PUBLICATION_MS));
        await uploader.loader.stop('SIGKILL');
        const answers = await Promise.all(uploading);
        const seen = await Promise.all(resources.map(async (versions) => await loadCold(other, versions)));
        await uploader.startLoader();
        await uploader.login();
        await ended();
        for (const [index, versions] of resources.entries()) {
          const [earlier, next] = [standing[index], nexts[index]];
          assert.ok(earlier !== undefined && next !== undefined);
          const [answer, before] = [answers[index], seen[index]];
          const possible = new Set<unknown>([earlier.number, next.number, 'upload_unfinished']);
          assert.ok(possible.has(before), `the other device got ${before} before the next start`);
          const found = await loadCold(other, versions);
          const isNext = found === next.number;
          // What was answered, or was served already, stays.
          const mayBeEarlier = answer !== 'ok' && before !== next.number;
          assert.ok(isNext || (mayBeEarlier && found === earlier.number), `${found} after ${answer} and ${before}`);
          assert.equal(await loadCold(uploader, versions), found);
          if (isNext) standing[index] = next;
          const isCompleted = uploader.loader
            .logLines('An upload that was broken off was completed')
            .some((line) => line.includes(JSON.stringify(versions.name)));
          if (before === 'upload_unfinished') tally.count('were between their parts');
          if (answer === 'ok') tally.count('had been answered');
          else if (isCompleted) tally.count('were completed by the next start');
          else tally.count(isNext ? 'stood already' : 'were removed');
        }
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
        const [ours, theirs] = [versions.make(CROSSING_LENGTH), versions.make(CROSSING_LENGTH)];
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
