import { setPriority } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { parentPort, workerData, type MessagePort } from 'node:worker_threads';
import { happens } from '../async/abort.ts';
import { DockerEngine } from '../docker/docker-engine.ts';
import { asLoaderError, LoaderError, toError } from '../errors.ts';
import { ImageLoadProgress } from './unlock-progress.ts';
import { unlockArchive } from './unlock-archive.ts';
import type { UnlockJob, ThreadMessage, ThreadOrder } from './unlock-worker.ts';

/**
 * The worker thread of an unlock does everything that takes time or memory. It starts while the login is still under
 * way, and begins to work when it gets the key.
 */

/** Between two reports of progress, in ms. */
const REPORT_EVERY_MS = 100;
/** On Linux it applies to this thread alone. The engine, the containers and the Loader's own event loop come first. */
const NICENESS = 15;

async function main(port: MessagePort, job: UnlockJob): Promise<void> {
  stepBack();
  const cancel = new AbortController();
  const key = Promise.withResolvers<Buffer>();
  port.on('message', (order: ThreadOrder) => {
    if (order.kind === 'begin') key.resolve(Buffer.from(order.aesKey));
    else cancel.abort(new LoaderError(order.code, order.message));
  });
  const engine = new DockerEngine({ host: job.dockerHost, timeoutMs: job.engineTimeoutMs });
  const progress = new ImageLoadProgress();
  const over = new AbortController();
  const reporting = reportRegularly(port, progress, over.signal);
  try {
    const aesKey = await key.promise;
    const loaded = await unlockArchive({ ...job, aesKey, engine, progress, signal: cancel.signal });
    reportProgress(port, progress);
    post(port, { kind: 'loaded', loaded });
  } catch (error) {
    post(port, { kind: 'failed', ...describeFailure(error) });
  } finally {
    over.abort();
    await reporting;
    await engine.close();
    port.close();
  }
}

/** Reports the progress once it is known what is to be loaded, until `over` aborts. */
async function reportRegularly(port: MessagePort, progress: ImageLoadProgress, over: AbortSignal): Promise<void> {
  if (!(await happens(progress.planned, over))) return;
  while (!over.aborted) {
    reportProgress(port, progress);
    await sleep(REPORT_EVERY_MS, undefined, { signal: over }).catch(() => undefined);
  }
}

function reportProgress(port: MessagePort, progress: ImageLoadProgress): void {
  const present = progress.read();
  if (present !== undefined) post(port, { kind: 'progress', progress: present });
}

function post(port: MessagePort, message: ThreadMessage): void {
  port.postMessage(message);
}

function stepBack(): void {
  try {
    setPriority(0, NICENESS);
  } catch {
    // Where the system forbids it, all threads have one priority.
  }
}

/** Errors lose their class and their cause on the way to the other thread. The causes are sent as text, for the log. */
function describeFailure(error: unknown): Omit<Extract<ThreadMessage, { kind: 'failed' }>, 'kind'> {
  const { code, message, cause, stack } = asLoaderError(error);
  return { code, message, reason: cause === undefined ? String(stack) : String(toError(cause).stack) };
}

if (parentPort !== null) await main(parentPort, workerData as UnlockJob);
