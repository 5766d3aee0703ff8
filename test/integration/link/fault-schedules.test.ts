import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { PASSING_API_FAULTS } from '../../../lab/faults/api-faults.ts';
import { PASSING_S3_FAULTS } from '../../../lab/faults/s3-faults.ts';
import { S3_MANNERS } from '../../../lab/faults/s3-manners.ts';
import { makeRandom } from '../../../lab/seeded-random.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';
import { prefetchOf } from '../../../lab/task-client.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { startS3Store, type S3Store } from '../../../lab/upstream/s3-store.ts';
import { eventually } from '../../../lab/waiting.ts';
import type { ErrorCode } from '../../../src/errors.ts';
import { Device } from '../../support/device.ts';
import { FaultWindow, type FaultPlan, type Lasting } from '../../support/fault-window.ts';
import { LASTING_FAULTS_OF_API, LASTING_FAULTS_OF_S3, type LastingFault } from '../../support/lasting-faults.ts';
import { newApiKey } from '../../support/test-loader.ts';

/**
 * What a Loader does while the servers misbehave, by a seed: a manner of the S3 server, faults of both servers, and a
 * deed. No byte may be wrong and no failure may be told as a success, passing faults must do no harm, a lasting one must be
 * told by its code, and nothing may be left.
 */

/** A run of the tests takes few, the campaign (npm run test:schedules) 500. */
const COUNT = Number(process.env['LOADER_TEST_SCHEDULES'] ?? 5);
const FIRST_SEED = Number(process.env['LOADER_TEST_SCHEDULE_FIRST'] ?? 1);
/** Repeats one. */
const SEED = process.env['LOADER_TEST_SCHEDULE_SEED'];
const SEEDS = SEED === undefined ? Array.from({ length: COUNT }, (_, index) => FIRST_SEED + index) : [Number(SEED)];

/** Devices work side by side, each with servers of its own: most of the time they wait. The last one's S3 server is in memory. */
const LANES = 4;
/** Longer than a few passing faults last together, in ms. */
const PATIENCE_MS = 5_000;
const API_TIMEOUT_MS = 1_200;
/** Of resources: less than a part, two parts, three. */
const LENGTHS = [300_000, 9_000_000, 17_500_000] as const;
const NAME = 'model';

const DEEDS = [
  'cold load',
  'warm load',
  'two loads',
  'prefetch',
  'upload',
  'first upload',
  'upload and load',
  'load beside upload',
  'login',
] as const;
type Deed = (typeof DEEDS)[number];

type MannerName = keyof typeof S3_MANNERS;

/** Manners that need an upstream which checks no signature. */
const UNSIGNED: readonly MannerName[] = ['an hour ahead', 'ETags that differ between edges'];

/** Manners that the deeds of a kind can't succeed with, and the code of their failure. */
const HARMFUL_MANNERS: Partial<Record<MannerName, { readonly of: 'load' | 'upload'; readonly code: ErrorCode }>> = {
  'takes Range away': { of: 'load', code: 'cdn_signature_refused' },
  'no ETags': { of: 'upload', code: 'cdn_invalid_response' },
  'ETags that differ between edges': { of: 'upload', code: 'cdn_error' },
};

interface Schedule {
  readonly seed: number;
  readonly deed: Deed;
  readonly length: number;
  readonly manner: MannerName | undefined;
  readonly plan: FaultPlan;
}

/** `ok`, the code of a failure, or the digest of what came. */
type Outcome = { readonly kind: 'ok'; readonly digest?: string } | { readonly kind: 'failed'; readonly code: string };

const isLoad = (deed: Deed) => ['cold load', 'two loads', 'prefetch'].includes(deed);
const isUpload = (deed: Deed) => deed === 'upload' || deed === 'first upload';

function draw(seed: number): Schedule {
  const random = makeRandom(seed * 7919);
  const pick = <T>(values: readonly T[]): T => {
    const value = values[Math.floor(random() * values.length)];
    if (value === undefined) throw new Error('nothing to draw from');
    return value;
  };
  const deed = pick(DEEDS);
  const length = pick(LENGTHS);
  const isUnsigned = laneOf(seed) === LANES - 1;
  const manners = Object.keys(S3_MANNERS) as MannerName[];
  const manner = random() < 0.5 ? pick(manners.filter((name) => UNSIGNED.includes(name) === isUnsigned)) : undefined;
  const passes = random() < 0.4 || HARMFUL_MANNERS[manner ?? 'weak ETags'] !== undefined;
  const lasting = passes || deed === 'upload and load' || deed === 'load beside upload' ? undefined : drawLasting();
  return { seed, deed, length, manner, plan: { seed, ...drawPassing(), lasting } };

  function drawPassing() {
    const silent = ['never answered', 'silent from the middle on'];
    // The silence of a server may take all of the patience.
    const isSilent = random() < 0.15;
    const choose = <T>(faults: Readonly<Record<string, T>>) =>
      Object.fromEntries(Object.entries(faults).filter(([name]) => silent.includes(name) === isSilent));
    return {
      passingOfS3: choose(PASSING_S3_FAULTS),
      passingOfApi: choose(PASSING_API_FAULTS),
      chance: 0.3,
      most: isSilent ? 1 : 1 + Math.floor(random() * 3),
    };
  }

  function drawLasting(): Lasting | undefined {
    const after = Math.floor(random() * 3);
    if (random() < 0.6 && deed !== 'login' && deed !== 'warm load') {
      const [name, fault] = pick(Object.entries(LASTING_FAULTS_OF_S3).filter(([, { meets }]) => meetsDeed(meets)));
      // The second look comes when the upload has been answered, and fails nothing.
      const isOfLook = fault.meets.every((kind) => kind === 'look');
      return { server: 's3', name, fault, after: isOfLook ? 0 : after };
    }
    const [name, fault] = pick(
      Object.entries(LASTING_FAULTS_OF_API).filter(
        ([, { meets, isOfLoads }]) => meetsDeed(meets) && !(isOfLoads === true && isUpload(deed)),
      ),
    );
    return { server: 'api', name, fault, after: deed === 'login' ? 0 : after % 2 };
  }

  function meetsDeed(meets: readonly string[]): boolean {
    const kinds = isUpload(deed)
      ? ['begin', 'part', 'complete', 'look', 'get', 'store']
      : deed === 'login'
        ? ['login', 'get']
        : ['read', 'get'];
    return kinds.some((kind) => meets.includes(kind));
  }
}

function laneOf(seed: number): number {
  return seed % LANES;
}

const POOL = randomBytes(Math.max(...LENGTHS));

function makeContent(length: number): Buffer<ArrayBuffer> {
  return Buffer.concat([randomBytes(16), POOL.subarray(16, length)]);
}

/** How often each outcome was seen, for the report of the campaign. */
const tally = new Map<string, number>();
const faultsMet = new Map<string, number>();
function count(counts: Map<string, number>, what: string): void {
  counts.set(what, (counts.get(what) ?? 0) + 1);
}

/** A device, another one with the same upstream, and what stands there. */
class Lane {
  readonly #device: Device;
  readonly #other: Device;
  readonly #hasList: boolean;
  #standing = '';
  #standingLength = 0;

  private constructor(device: Device, other: Device, hasList: boolean) {
    this.#device = device;
    this.#other = other;
    this.#hasList = hasList;
  }

  static async start(store: S3Store | undefined): Promise<Lane> {
    const env = {
      LOG_LEVEL: 'info',
      API_KEY: newApiKey(),
      STALL_TIMEOUT_MS: String(PATIENCE_MS),
      PREFETCH_OUTAGE_MS: String(PATIENCE_MS),
      UPSTREAM_TIMEOUT_MS: String(API_TIMEOUT_MS),
    };
    const device = await Device.start({ env, ...(store === undefined ? {} : { s3: store }) });
    const other = await Device.start({ env, sharing: device });
    await Promise.all([device.login(), other.login()]);
    return new Lane(device, other, store === undefined);
  }

  async stop(): Promise<void> {
    await this.#other.stop();
    await this.#device.stop();
  }

  /** After a schedule that failed: the next one begins with a version of its own. */
  async restore(): Promise<void> {
    this.#device.heal();
    await this.#device.login();
    // Or what is left would be ended within the next schedule, and taken for a part of it.
    await eventually(async () => (await this.#device.journal()).length === 0, { timeoutMs: 20_000 }).catch(
      () => undefined,
    );
    await this.#device.abortUploads().catch(() => undefined);
    this.#standingLength = 0;
    this.#possible = undefined;
  }

  async run(schedule: Schedule): Promise<void> {
    const { seed, deed, length, manner, plan } = schedule;
    const { s3Proxy, apiProxy } = this.#device;
    await this.#prepare(deed, length);
    const window = new FaultWindow(plan);
    s3Proxy.fault = window.s3Fault;
    apiProxy.fault = window.apiFault;
    s3Proxy.manner = manner === undefined ? {} : S3_MANNERS[manner];
    try {
      await this.#do(schedule, window);
      this.#device.heal();
      await this.#leavesNothing(plan.lasting?.fault);
      await this.#standsWhole();
    } catch (error) {
      const lasting = plan.lasting === undefined ? '' : `, lasting ${plan.lasting.server} ${plan.lasting.name}`;
      throw new Error(
        `LOADER_TEST_SCHEDULE_SEED=${seed}: ${deed} of ${length} bytes, ${manner ?? 'no manner'}${lasting}; met: ${window.met.join('; ')}: ${String(error)}`,
        { cause: error },
      );
    } finally {
      this.#device.heal();
    }
    for (const name of window.names) count(faultsMet, name);
    if (window.lastingMet.length > 0) count(faultsMet, `lasting ${plan.lasting?.server}: ${plan.lasting?.name}`);
  }

  /** A version of the right length stands, and the cache is as the deed needs it. */
  async #prepare(deed: Deed, length: number): Promise<void> {
    if (this.#standingLength !== length) await this.#uploadStanding(length);
    await this.#device.settled();
    if (deed === 'warm load') await this.#loadWhole(this.#device);
    else await this.#dropCopy(this.#device);
    await this.#dropCopy(this.#other);
  }

  async #uploadStanding(length: number): Promise<void> {
    const content = makeContent(length);
    await this.#device.upload(NAME, content);
    this.#standing = sha256(content);
    this.#standingLength = length;
  }

  async #do(schedule: Schedule, window: FaultWindow): Promise<void> {
    const { deed, length } = schedule;
    const fails = expectedCode(schedule, window);
    switch (deed) {
      case 'cold load':
      case 'warm load':
        this.#expectLoad(await this.#load(this.#device, NAME), fails(), deed);
        return;
      case 'prefetch':
        this.#expectLoad(await this.#prefetch(), fails(), deed);
        return;
      case 'two loads': {
        const loads = await Promise.all([this.#load(this.#device, NAME), this.#load(this.#device, NAME)]);
        // One may have come through before the fault.
        const failed = loads.find(({ kind }) => kind === 'failed');
        for (const load of loads) if (load.kind === 'ok') this.#expectLoad(load, undefined, deed);
        this.#expectLoad(failed ?? { kind: 'ok', digest: this.#standing }, fails(), deed);
        return;
      }
      case 'login': {
        const { status, body } = await this.#device.loader.login(this.#device.email, this.#device.password);
        const outcome: Outcome = status === 200 ? { kind: 'ok' } : { kind: 'failed', code: body.code ?? 'no code' };
        this.#expectLogin(outcome, fails(), window);
        return;
      }
      case 'upload': {
        await this.#expectUpload(NAME, length, fails, deed);
        return;
      }
      case 'first upload': {
        await this.#expectFirstUpload(`first-${schedule.seed}`, length, fails);
        return;
      }
      case 'upload and load':
        await this.#expectUpload(NAME, length, fails, deed);
        this.#expectLoad(await this.#load(this.#other, NAME), harmOf(schedule, 'load'), deed);
        return;
      case 'load beside upload': {
        const before = this.#standing;
        const content = makeContent(length);
        const [load, upload] = await Promise.all([
          this.#load(this.#device, NAME),
          this.#upload(this.#other, NAME, content),
        ]);
        const now = sha256(content);
        const uploadCode = harmOf(schedule, 'upload');
        expectOutcome(upload, uploadCode, `${deed}: the upload`);
        if (upload.kind === 'ok') this.#standing = now;
        const loadCode = harmOf(schedule, 'load');
        if (load.kind === 'ok')
          assert.ok([before, now].includes(load.digest ?? ''), 'a load beside an upload gave a mixture');
        else assert.ok([loadCode, 'cdn_object_changed', 'upload_unfinished'].includes(load.code), load.code);
        count(tally, `${deed}: ${load.kind === 'ok' ? 'ok' : load.code}`);
      }
    }
  }

  #expectLoad(load: Outcome, code: ErrorCode | undefined, deed: Deed): void {
    expectOutcome(load, code, deed);
    if (load.kind === 'ok') assert.equal(load.digest, this.#standing, `${deed}: wrong bytes`);
  }

  /** A login does not wait, so it fails by a passing fault of its first call. */
  #expectLogin(login: Outcome, code: ErrorCode | undefined, window: FaultWindow): void {
    const passing = ['api_error', 'api_unreachable', 'api_timeout'];
    const isOfLogin = window.met.some((text) => text.includes('POST /login'));
    if (code === undefined && isOfLogin && login.kind === 'failed' && passing.includes(login.code)) {
      count(tally, `login: ${login.code} at its first call, by a passing fault`);
    } else {
      expectOutcome(login, code, 'login');
    }
  }

  async #expectUpload(name: string, length: number, fails: () => ErrorCode | undefined, deed: Deed): Promise<void> {
    const content = makeContent(length);
    const upload = await this.#upload(this.#device, name, content);
    expectOutcome(upload, fails(), deed);
    if (upload.kind === 'ok') this.#standing = sha256(content);
    else this.#possible = sha256(content);
  }

  /** What a failed upload may have left in the place of what stood, once it is known. */
  #possible: string | undefined;

  async #expectFirstUpload(name: string, length: number, fails: () => ErrorCode | undefined): Promise<void> {
    const content = makeContent(length);
    const upload = await this.#upload(this.#device, name, content);
    expectOutcome(upload, fails(), 'first upload');
    this.#device.heal();
    await this.#device.login();
    await eventually(async () => (await this.#device.journal()).length === 0, {
      timeoutMs: 20_000,
      what: 'an empty journal',
    });
    const load = await this.#load(this.#other, name);
    await this.#dropCopy(this.#device, name);
    await this.#dropCopy(this.#other, name);
    if (load.kind === 'ok') assert.equal(load.digest, sha256(content), 'wrong bytes after a first upload');
    else {
      assert.equal(upload.kind, 'failed', `an upload told as ok does not load: ${load.code}`);
      assert.ok(['resource_not_in_api', 'resource_not_in_cdn'].includes(load.code), load.code);
    }
  }

  /** Nothing is open, unfinished or unknown once a user has logged in. */
  async #leavesNothing(lasting: LastingFault | undefined): Promise<void> {
    await this.#device.login();
    for (const device of [this.#device, this.#other]) {
      await eventually(async () => (await device.journal()).length === 0, {
        timeoutMs: 20_000,
        what: 'an empty journal',
      });
      await device.settled();
    }
    if (!this.#hasList) return;
    const pending = await this.#device.pendingUploads();
    // This server has lost nothing: it was only said so.
    if (lasting?.losesUpload === true) await this.#device.abortUploads();
    else assert.deepEqual(pending, [], 'unfinished uploads in the bucket');
  }

  /** Both devices load one whole version. */
  async #standsWhole(): Promise<void> {
    await this.#dropCopy(this.#other);
    const load = await this.#load(this.#other, NAME);
    if (load.kind === 'failed') throw new Error(`what stands does not load: ${load.code}`);
    if (load.digest === this.#possible && load.digest !== undefined) this.#standing = load.digest;
    this.#possible = undefined;
    assert.equal(load.digest, this.#standing, 'another device loads wrong bytes');
    await this.#loadWhole(this.#device);
  }

  async #loadWhole(device: Device): Promise<void> {
    const load = await this.#load(device, NAME);
    assert.deepEqual(load, { kind: 'ok', digest: this.#standing });
  }

  async #load({ loader }: Device, name: string): Promise<Outcome> {
    const logged = loader.log().length;
    const response = await loader.load(name);
    if (response.status !== 200) {
      return { kind: 'failed', code: (await loader.readJson(response)).body.code ?? 'no code' };
    }
    try {
      return { kind: 'ok', digest: (await digestBody(response)).sha256 };
    } catch {
      // Its first bytes are gone, so the log is the only place that tells the code.
      const line = () =>
        loader
          .log()
          .slice(logged)
          .split('\n')
          .find((text) => text.includes('"The response was broken off"'));
      await eventually(() => line() !== undefined, { what: 'the line of a broken response' });
      return { kind: 'failed', code: (JSON.parse(line() ?? '{}') as { code?: string }).code ?? 'no code' };
    }
  }

  async #prefetch(): Promise<Outcome> {
    const task = await this.#device.tasks.run('prefetch', prefetchOf(NAME));
    if (task.status === 'complete') {
      // From the cache alone: what was fetched must be right.
      return await this.#load(this.#device, NAME);
    }
    const result = task.result as { resources: { code: string | null }[] } | null;
    return { kind: 'failed', code: result?.resources[0]?.code ?? task.code ?? 'no code' };
  }

  async #upload({ loader }: Device, name: string, content: Buffer<ArrayBuffer>): Promise<Outcome> {
    const { status, body } = await loader.upload(name, content);
    return status === 200 ? { kind: 'ok' } : { kind: 'failed', code: body.code ?? 'no code' };
  }

  async #dropCopy(device: Device, name = NAME): Promise<void> {
    await rm(device.bigPath(name), { force: true });
  }
}

function expectOutcome(outcome: Outcome, code: ErrorCode | undefined, what: string): void {
  const got = outcome.kind === 'ok' ? 'ok' : outcome.code;
  count(tally, `${what}: ${got}`);
  assert.equal(got, code ?? 'ok', what);
}

/** The code with which the deed must fail, when it has ended; undefined where it must succeed. */
function expectedCode(schedule: Schedule, window: FaultWindow): () => ErrorCode | undefined {
  return () => {
    const what = isUpload(schedule.deed) || schedule.deed === 'upload and load' ? 'upload' : 'load';
    const harm = harmOf(schedule, what);
    if (harm !== undefined) return harm;
    const { lasting } = schedule.plan;
    const [first] = window.lastingMet;
    if (lasting === undefined || first === undefined) return undefined;
    if (isUpload(schedule.deed) && window.isAfterUpload && lasting.fault.code !== 'upload_superseded') return undefined;
    return lasting.fault.code;
  };
}

function harmOf({ manner, deed }: Schedule, what: 'load' | 'upload'): ErrorCode | undefined {
  const harm = manner === undefined ? undefined : HARMFUL_MANNERS[manner];
  if (harm?.of !== what || deed === 'login' || deed === 'warm load') return undefined;
  if (what === 'load' && !isLoad(deed) && deed !== 'upload and load' && deed !== 'load beside upload') return undefined;
  return harm.code;
}

describe('a Loader whose servers misbehave by a seed', { skip: S3_SKIP, timeout: 120_000 + COUNT * 10_000 }, () => {
  let store: S3Store;
  const lanes: Lane[] = [];
  before(async () => {
    store = await startS3Store();
    const used = new Set(SEEDS.map(laneOf));
    for (let lane = 0; lane < LANES; lane++) {
      if (used.has(lane)) lanes[lane] = await Lane.start(lane === LANES - 1 ? store : undefined);
    }
  });
  after(async () => {
    for (const lane of lanes) await (lane as Lane | undefined)?.stop();
    await store.stop();
  });

  it('hands out no wrong byte, tells no failure as a success, and each failure by its code', async (t) => {
    const failures: string[] = [];
    await Promise.all(
      Object.entries(lanes).map(async ([index, lane]) => {
        for (const seed of SEEDS.filter((one) => laneOf(one) === Number(index))) {
          try {
            await lane.run(draw(seed));
          } catch (error) {
            failures.push(String(error));
            console.log(String(error));
            await lane.restore();
          }
        }
      }),
    );
    const told = (counts: Map<string, number>) =>
      [...counts]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([what, number]) => `${number} ${what}`)
        .join(', ');
    t.diagnostic(`schedules: ${SEEDS.length}, failed: ${failures.length}`);
    t.diagnostic(`outcomes: ${told(tally)}`);
    t.diagnostic(`faults met: ${told(faultsMet)}`);
    assert.deepEqual(failures, []);
  });
});
