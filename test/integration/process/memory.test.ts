import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { request, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BOUNDARY, FORM_END, partHead } from '../../../lab/faults/raw-http.ts';
import { readMemory } from '../../../lab/proc.ts';
import { sha256, digestBody } from '../../../lab/sha256.ts';
import { DEMO_USER, Origin } from '../../../lab/upstream/origin.ts';
import { eventually } from '../../../lab/waiting.ts';
import { SlowCdn } from '../../support/slow-cdn.ts';
import { TestLoader } from '../../support/test-loader.ts';

const MB = 1_000_000;
const MIB = 1024 * 1024;

/** `npm run test:memory` sets it: a hundred of each, with the default budget. */
const COUNT = Number(process.env['LOADER_TEST_MEMORY'] ?? '0');
const IS_LARGE = COUNT > 0;
const PLAN = IS_LARGE
  ? { uploads: COUNT, loads: COUNT, length: 45 * MB, bytesPerSecond: MB, budgetMb: undefined, maxGrowth: 300 * MIB }
  : { uploads: 10, loads: 10, length: 20 * MB, bytesPerSecond: 40 * MB, budgetMb: '16', maxGrowth: 110 * MIB };
/** What may stay of it: a Loader that has worked has more of its code and heap in memory. */
const MAX_LEFT = 100 * MIB;
/** When it must be back. */
const BACK_MS = 30_000;
const TIMEOUT_MS = IS_LARGE ? 20 * 60_000 : 60_000;

describe('all uploads and cold loads together', { timeout: TIMEOUT_MS }, () => {
  const content = randomBytes(PLAN.length);
  let folder = '';
  let cdn: SlowCdn;
  let origin: Origin;
  let loader: TestLoader;
  /** Memory of the Loader before it has worked, in bytes. */
  let idle = 0;

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'loader-memory-'));
    cdn = await SlowCdn.start();
    origin = await Origin.start({ folder: path.join(folder, 'origin') });
    const keys = { downloader_access_key: 'D', downloader_access_secret: 'downloader-secret' };
    await origin.publishCdnConfig({
      ...keys,
      host: cdn.url,
      bucket: 'models',
      uploader_access_key: 'U',
      uploader_access_secret: 'uploader-secret',
      resource_key: origin.resourceKey,
    });
    loader = await TestLoader.start({
      env: {
        RESOURCE_API_URL: origin.api.url,
        MODEL_CACHE_DIR: path.join(folder, 'models'),
        STATE_DIR: path.join(folder, 'state'),
        UPLOAD_SECOND_LOOK_MS: '0',
        ...(PLAN.budgetMb !== undefined && { MEMORY_BUDGET_MB: PLAN.budgetMb }),
      },
    });
    await loader.login(DEMO_USER.email, DEMO_USER.password);
    idle = readMemory(loader.pid).present;
    await shareOneObject();
  });
  after(async () => {
    await loader.stop();
    await origin.stop();
    await cdn[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  /** Lets the CDN serve one version under all names of the cold loads. */
  async function shareOneObject(): Promise<void> {
    assert.equal(await upload('seed'), 200);
    const { smallSha256, parts } = cdn.objects.get('/models/models/seed.big') ?? assert.fail('the seed is not there');
    cdn.shared = { smallSha256, content: Buffer.concat(parts as Buffer[]) };
    const small = await origin.api.read('models', 'seed.small');
    for (let index = 0; index < PLAN.loads; index++) await origin.api.store('models', `cold-${index}.small`, small);
  }

  /** Sends the content as slowly as the Loader takes it. */
  async function upload(name: string): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const head = Buffer.from(partHead('data', 'm'));
    const length = head.length + content.length + FORM_END.length;
    const headers = { 'content-type': `multipart/form-data; boundary=${BOUNDARY}`, 'content-length': length };
    const sending = request(`${loader.url}/upload/${name}`, { method: 'POST', headers }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode ?? 0));
    });
    sending.on('error', reject);
    sending.write(head);
    sending.write(content);
    sending.end(FORM_END);
    return await promise;
  }

  /** Begins a load and reads nothing of it. */
  async function stalledLoad(name: string): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const headers = { 'content-type': 'application/json' };
    const sending = request(`${loader.url}/load/${name}`, { method: 'POST', headers }, resolve);
    sending.on('error', reject);
    sending.end(JSON.stringify({ folder: 'models' }));
    return await promise;
  }

  it(
    'stay within the budget, succeed, hold up no look at the health, and give the memory back',
    { timeout: TIMEOUT_MS },
    async (t) => {
      let peak = 0;
      let slowestMs = 0;
      const end = new AbortController();
      const watching = (async () => {
        while (!end.signal.aborted) {
          const startedAt = performance.now();
          await loader.get('/health');
          slowestMs = Math.max(slowestMs, performance.now() - startedAt);
          peak = Math.max(peak, readMemory(loader.pid).present);
          await sleep(50);
        }
      })();
      cdn.bytesPerSecond = PLAN.bytesPerSecond;
      cdn.keepsParts = !IS_LARGE;
      const uploading = Array.from({ length: PLAN.uploads }, async (_, index) => await upload(`up-${index}`));
      const loads = await Promise.all(
        Array.from({ length: PLAN.loads }, async (_, index) => await stalledLoad(`cold-${index}`)),
      );
      assert.deepEqual(new Set(await Promise.all(uploading)), new Set([200]));
      for (const load of loads) assert.equal(load.statusCode, 200);
      const copies = async () =>
        (await loader.get('/health')).status === 200 &&
        loader.openFilesUnder(path.join(folder, 'models', '.parts')).length === 0;
      await eventually(copies, { timeoutMs: TIMEOUT_MS, what: 'the end of all transfers' });
      end.abort();
      await watching;
      if (!IS_LARGE) await expectWhole(loads);
      for (const load of loads) load.destroy();
      const endedAt = performance.now();
      const left = () => readMemory(loader.pid).present - idle;
      // At full size, the whole time that it is given: what is left is then a figure, not only below a bound.
      if (IS_LARGE) await sleep(BACK_MS);
      else {
        const isBack = eventually(() => left() < MAX_LEFT, { timeoutMs: BACK_MS, what: 'all of the memory' });
        await isBack.catch((error: unknown) => t.diagnostic(String(error)));
      }
      t.diagnostic(
        `idle ${mib(idle)}, at most ${mib(peak - idle)} above, ${mib(left())} above after ` +
          `${Math.round((performance.now() - endedAt) / 1000)} s; slowest /health ${Math.round(slowestMs)} ms`,
      );
      assert.ok(peak - idle <= PLAN.maxGrowth, `${mib(peak - idle)} above idle`);
      assert.ok(left() < MAX_LEFT, `${mib(left())} above idle at the end`);
      assert.ok(slowestMs < 1_000, `/health took ${slowestMs} ms`);
    },
  );

  async function expectWhole(loads: readonly IncomingMessage[]): Promise<void> {
    cdn.bytesPerSecond = Infinity;
    for (const load of loads) {
      const chunks: Buffer[] = [];
      for await (const chunk of load as AsyncIterable<Buffer>) chunks.push(chunk);
      assert.equal(sha256(Buffer.concat(chunks)), sha256(content));
    }
    for (let index = 0; index < PLAN.uploads; index++) {
      assert.equal((await digestBody(await loader.load(`up-${index}`))).sha256, sha256(content));
    }
  }
});

function mib(bytes: number): string {
  return `${Math.round(bytes / MIB)} MiB`;
}
