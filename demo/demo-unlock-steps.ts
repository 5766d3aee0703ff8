import { randomBytes } from 'node:crypto';
import { rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { UnlockStatus } from '../src/unlock/unlock-service.ts';
import type { DemoEngine } from './demo-engine.ts';
import type { DemoStage } from './demo-stage.ts';
import { drawProgressBar } from './progress-bar.ts';
import { bodyOf } from '../lab/json-answer.ts';
import type { LoaderClient } from '../lab/loader-client.ts';
import { DEMO_USER } from '../lab/upstream/origin.ts';
import { runLoaderCommand } from '../lab/loader-command.ts';
import type { ShowProgress, StepPrinter } from './step-printer.ts';

/**
 * The demo's third part: images are packed, and unlocked into the engine.
 *
 * @throws Error of the step that failed, or the reason of `signal`
 */
export async function runUnlockSteps(
  stage: DemoStage,
  engine: DemoEngine,
  printer: StepPrinter,
  signal: AbortSignal,
): Promise<void> {
  const step: StepPrinter['step'] = (title, work) => printer.step(title, work, signal);

  await step('Pack three images', async () => {
    const lines = await pack(stage, engine, signal);
    const { size } = await stat(stage.archivePath);
    return { bytes: size, note: 'loader pack, encrypted and read back', details: lines };
  });
  await step('Unlock with a wrong password', async () => {
    const { last } = await unlock(stage.client(signal), randomBytes(8).toString('hex'));
    if (last.code !== 'wrong_credentials') throw new Error(`the unlock ended with ${JSON.stringify(last)}`);
    const { state, error, code } = last;
    return { note: 'ended in an error', details: [JSON.stringify({ state, error, code })] };
  });
  await step('Unlock', async (show) => {
    const { last, states } = await unlock(stage.client(signal), DEMO_USER.password, show);
    if (last.state !== 'ready') throw new Error(last.error ?? `the unlock ended in ${last.state}`);
    await engine.assertLoaded(signal);
    const bytes = last.progress?.bytesDone ?? 0;
    // Some engines take no image without the layers that they have already.
    const sentOnce = bytes === engine.distinctLength ? '; the layer that they share was sent once' : '';
    return {
      bytes,
      note: `the engine has all three${sentOnce}`,
      details: [states.join(' > ')],
    };
  });
  await step('Start another Loader', async () => {
    return { note: await stage.startLoader(signal) };
  });
  await step('Unlock once more', async () => {
    const startedAt = performance.now();
    const { last, states } = await unlock(stage.client(signal), DEMO_USER.password);
    const ms = Math.round(performance.now() - startedAt);
    if (last.state !== 'ready') throw new Error(last.error ?? `the unlock ended in ${last.state}`);
    if (states.includes('downloading_key')) throw new Error('the Loader went through the archive again');
    return { note: `${ms} ms: finished stays finished, and needs no key` };
  });
}

/** Makes the encrypted archive of the engine's images. Returns the lines that the command printed, without the first. */
async function pack(stage: DemoStage, engine: DemoEngine, signal: AbortSignal): Promise<string[]> {
  const tarPath = path.join(stage.folder, 'images.tar');
  const fragmentPath = path.join(stage.folder, 'key-fragment');
  await writeFile(tarPath, engine.createTar());
  await writeFile(fragmentPath, stage.keyFragment, { mode: 0o600 });
  const args = ['pack', '--from-tar', tarPath, '--output', stage.archivePath, '--key-fragment-file', fragmentPath];
  try {
    const output = await runLoaderCommand(args, { cwd: stage.folder, signal });
    // Without the first line, which has the path.
    return output.trimEnd().split('\n').slice(1);
  } finally {
    await rm(tarPath, { force: true });
    await rm(fragmentPath, { force: true });
  }
}

/** Returns its last status and the states on its way. */
async function unlock(
  client: LoaderClient,
  password: string,
  show: ShowProgress = () => undefined,
): Promise<{ last: UnlockStatus; states: string[] }> {
  bodyOf(await client.startUnlock(DEMO_USER.email, password));
  const states: string[] = [];
  let last: UnlockStatus | undefined;
  for await (const status of client.watchUnlock()) {
    last = status;
    if (status.state !== states.at(-1)) states.push(status.state);
    show(progressBar(status));
  }
  if (last === undefined) throw new Error('the Loader sent no event of the unlock');
  return { last, states };
}

function progressBar({ state, progress }: UnlockStatus): string {
  const { percent = 0, bytesDone = 0, bytesTotal = 0, bytesPerSecond = 0 } = progress ?? {};
  const bar = drawProgressBar({ percent, bytesDone, bytesTotal });
  if (bytesTotal === 0) return `${bar} ${state}`;
  return bytesPerSecond === 0 ? bar : `${bar}, ${(bytesPerSecond / 1e6).toFixed(0)} MB/s`;
}
