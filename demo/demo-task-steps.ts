import type { DemoStage } from './demo-stage.ts';
import { DEMO_RESOURCE } from './demo-steps.ts';
import { TaskClient } from '../lab/task-client.ts';
import { drawProgressBar } from './progress-bar.ts';
import type { ShowProgress, StepPrinter } from './step-printer.ts';

/**
 * The demo's second part: background tasks on what lies in the cache.
 *
 * @throws Error of the step that failed, or the reason of `signal`
 */
export async function runTaskSteps(stage: DemoStage, printer: StepPrinter, signal: AbortSignal): Promise<void> {
  const step: StepPrinter['step'] = (title, work) => printer.step(title, work, signal);
  const tasks = new TaskClient(stage.client(signal));

  await step('Evict all from the cache', async () => {
    const { result } = await runTask(tasks, 'evict', { max_bytes: 0 });
    return { note: `${String(result['files_removed'])} file removed, ${String(result['bytes_left'])} bytes left` };
  });
  await step('Prefetch the model', async (show) => {
    const downloadsBefore = stage.cdnDownloads;
    const { bytes } = await runTask(tasks, 'prefetch', { resources: [DEMO_RESOURCE] }, show);
    if (stage.cdnDownloads === downloadsBefore) throw new Error('the Loader did not go to the CDN for it');
    return { bytes, note: 'from the CDN into the cache, before any load' };
  });
  await step('Verify the cache', async (show) => {
    const { result, bytes } = await runTask(tasks, 'verify', {}, show);
    if (result['bad'] !== 0) throw new Error(`${String(result['bad'])} copies are bad`);
    return { bytes, note: 'no copy is bad' };
  });
}

/** Runs a task that must become complete. */
async function runTask(
  tasks: TaskClient,
  provider: string,
  parameters: object,
  show: ShowProgress = () => undefined,
): Promise<{ readonly bytes: number; readonly result: Readonly<Record<string, unknown>> }> {
  const task = await tasks.complete(provider, parameters, ({ progress = 0, bytes_done, bytes_total }) => {
    show(drawProgressBar({ percent: progress, bytesDone: bytes_done ?? 0, bytesTotal: bytes_total ?? 0 }));
  });
  return { bytes: task.bytes_done, result: task.result as Readonly<Record<string, unknown>> };
}
