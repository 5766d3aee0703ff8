import { DEMO_API_KEY, type DemoStage } from './demo-stage.ts';
import { DEMO_RESOURCE } from './demo-steps.ts';
import { LoaderClient } from '../lab/loader-client.ts';
import { drawProgressBar } from './progress-bar.ts';
import type { ShowProgress, StepPrinter } from './step-printer.ts';

/** What the event `progress` tells. */
interface TaskProgress {
  readonly progress: number;
  readonly bytes_done: number;
  readonly bytes_total: number | null;
}

/** A task that has ended well, as far as the demo looks at it. */
interface EndedTask {
  readonly status: string;
  readonly result: Readonly<Record<string, unknown>>;
  readonly bytes_done: number;
  readonly error: string | null;
}

/**
 * The demo's second part: background tasks on what lies in the cache.
 *
 * @throws Error of the step that failed, or the reason of `signal`
 */
export async function runTaskSteps(stage: DemoStage, printer: StepPrinter, signal: AbortSignal): Promise<void> {
  const step: StepPrinter['step'] = (title, work) => printer.step(title, work, signal);
  const client = new LoaderClient(stage.loaderUrl, DEMO_API_KEY, signal);

  await step('Evict all from the cache', async () => {
    const { result } = await runTask(client, 'evict', { max_bytes: 0 });
    return { note: `${String(result['files_removed'])} file removed, ${String(result['bytes_left'])} bytes left` };
  });
  await step('Prefetch the model', async (show) => {
    const downloadsBefore = stage.cdnDownloads;
    const task = await runTask(client, 'prefetch', { resources: [DEMO_RESOURCE] }, show);
    if (stage.cdnDownloads === downloadsBefore) throw new Error('the Loader did not go to the CDN for it');
    return { bytes: task.bytes_done, note: 'from the CDN into the cache, for nobody yet' };
  });
  await step('Verify the cache', async (show) => {
    const { result, bytes_done: bytes } = await runTask(client, 'verify', {}, show);
    if (result['bad'] !== 0) throw new Error(`${String(result['bad'])} copies are bad`);
    return { bytes, note: 'no copy is bad' };
  });
}

/** Starts a task, follows it to its end, and answers it. @throws Error when it does not end well */
async function runTask(
  client: LoaderClient,
  provider: string,
  parameters: Readonly<Record<string, unknown>>,
  show: ShowProgress = () => undefined,
): Promise<EndedTask> {
  const uid = await client.startTask(provider, parameters);
  for await (const { event, data } of client.watchTask(uid)) {
    if (event === 'progress') {
      const { progress, bytes_done: bytesDone, bytes_total: bytesTotal } = data as TaskProgress;
      show(drawProgressBar({ percent: progress, bytesDone, bytesTotal: bytesTotal ?? 0 }));
    } else if (event === 'end') {
      const task = data as EndedTask;
      if (task.status !== 'complete') throw new Error(`the task ended as ${task.status}: ${task.error ?? ''}`);
      return task;
    }
  }
  throw new Error('the Loader told nothing of the end of the task');
}
