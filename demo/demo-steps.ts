import { createHash, randomBytes } from 'node:crypto';
import { existsSync, openAsBlob } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import path from 'node:path';
import type { DemoStage } from './demo-stage.ts';
import { shippedFolder } from '../lab/shipped-folder.ts';
import { bodyOf } from '../lab/json-answer.ts';
import type { LoaderClient } from '../lab/loader-client.ts';
import { digestBody } from '../lab/sha256.ts';
import { eventually } from '../lab/waiting.ts';
import { DEMO_USER } from '../lab/upstream/origin.ts';
import type { StepPrinter } from './step-printer.ts';

export const DEMO_RESOURCE = { filename: 'demo-model', folder: 'models' } as const;

const MODEL_LENGTH = 64_000_000;
const CHUNK_LENGTH = 1_000_000;

/**
 * The demo's first part: start, log in, upload, load cold and warm, compare.
 *
 * @throws Error of the step that failed, or the reason of `signal`
 */
export async function runDemoSteps(stage: DemoStage, printer: StepPrinter, signal: AbortSignal): Promise<void> {
  const step: StepPrinter['step'] = (title, work) => printer.step(title, work, signal);
  const digests: string[] = [];

  await step('Start Resource API and S3 store', async () => {
    const origin = await stage.startOrigin();
    return { note: `${origin.api.url}, ${origin.s3Endpoint}` };
  });
  await step('Start the Loader', async () => {
    await shippedFolder({
      signal,
      onBuild: () => printer.line('  The Loader is built first, as it ships: this happens once.'),
    });
    return { note: await stage.startLoader(signal) };
  });
  const client = stage.client(signal);
  await step('Log in with a wrong password', async () => {
    const answer = await client.login(DEMO_USER.email, randomBytes(8).toString('hex'));
    if (answer.status !== 401) throw new Error(`the Loader answered ${answer.status} in place of 401`);
    return { note: 'answered 401', details: [JSON.stringify(answer.body)] };
  });
  await step('Log in', async () => {
    bodyOf(await client.login(DEMO_USER.email, DEMO_USER.password));
    return { note: `as ${DEMO_USER.email}` };
  });
  await step('Make a model of 64 MB', async () => {
    digests.push(await makeModel(stage.modelPath, signal));
    return { bytes: MODEL_LENGTH, note: 'random bytes' };
  });
  await step('Upload it', async () => {
    bodyOf(await client.upload(DEMO_RESOURCE.filename, await openAsBlob(stage.modelPath), DEMO_RESOURCE.folder));
    return { bytes: MODEL_LENGTH, note: 'encrypted and split on the way' };
  });
  await step('Load it cold, from the CDN', async () => {
    // The Loader may still be writing the digests of what was uploaded.
    await rm(stage.cacheFolder, { recursive: true, maxRetries: 20, retryDelay: 20 });
    const downloadsBefore = stage.cdnDownloads;
    digests.push(await load(client));
    if (stage.cdnDownloads === downloadsBefore) throw new Error('the Loader did not go to the CDN for it');
    return { bytes: MODEL_LENGTH, note: 'the cache was removed before' };
  });
  await step('Load it warm, from the cache', async () => {
    // Its last byte came before the copy was on the disk.
    const bigPath = path.join(stage.cacheFolder, DEMO_RESOURCE.folder, `${DEMO_RESOURCE.filename}.big`);
    await eventually(() => existsSync(bigPath), { signal, what: 'the copy of the model in the cache' });
    const downloadsBefore = stage.cdnDownloads;
    digests.push(await load(client));
    if (stage.cdnDownloads !== downloadsBefore) throw new Error('the Loader went to the CDN for it');
    return { bytes: MODEL_LENGTH, note: 'the CDN was not asked' };
  });
  await step('Compare SHA-256', async () => {
    const [made = '', cold, warm] = digests;
    if (made !== cold || made !== warm) {
      throw new Error(`the models differ: made ${made}, loaded cold ${cold ?? ''}, loaded warm ${warm ?? ''}`);
    }
    return Promise.resolve({ note: 'made = loaded cold = loaded warm', details: [made] });
  });
}

/** Returns the SHA-256 of the model that came. */
async function load(client: LoaderClient): Promise<string> {
  const response = await client.load(DEMO_RESOURCE.filename, DEMO_RESOURCE.folder);
  if (response.status !== 200) bodyOf(await client.readJson(response));
  const model = await digestBody(response);
  if (model.length !== MODEL_LENGTH) throw new Error(`${model.length} bytes came back of ${MODEL_LENGTH}`);
  return model.sha256;
}

/** Writes a file of random bytes; returns its SHA-256. */
async function makeModel(filePath: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  const file = await open(filePath, 'wx');
  try {
    for (let written = 0; written < MODEL_LENGTH; written += CHUNK_LENGTH) {
      signal.throwIfAborted();
      const chunk = randomBytes(CHUNK_LENGTH);
      hash.update(chunk);
      await file.writeFile(chunk);
    }
  } finally {
    await file.close();
  }
  return hash.digest('hex');
}
