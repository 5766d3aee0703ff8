import { setPriority } from 'node:os';
import { parentPort, workerData, type MessagePort } from 'node:worker_threads';
import { DockerEngine } from '../docker/docker-engine.ts';
import { asLoaderError, LoaderError, toError } from '../errors.ts';
import { unlockArchive } from './unlock-archive.ts';
import type { UnlockSnapshot } from './image-load-progress.ts';
import type { UnlockJob, ThreadMessage, ThreadOrder } from './unlock-worker.ts';

/**
 * The worker thread of an unlock: all that takes time or memory happens here. It starts while the login is still under
 * way, and begins when it is given the key.
 */

/** Between two reports of progress, in ms. */
const REPORT_EVERY_MS = 100;
/** Of this thread alone, on Linux: the engine, the containers and our own event loop come first. */
const NICENESS = 15;

async function main(port: MessagePort, job: UnlockJob): Promise<void> {
  stepBack();
  const cancel = new AbortController();
  const key = Promise.withResolvers<Buffer>();
  port.on('message', (order: ThreadOrder) => {
    if (order.kind === 'begin') key.resolve(Buffer.from(order.aesKey));
    else cancel.abort(toLoaderError(order));
  });
  const report = (message: ThreadMessage) => port.postMessage(message);
  const engine = new DockerEngine({ host: job.dockerHost, timeoutMs: job.engineTimeoutMs });
  let readProgress: (() => UnlockSnapshot) | undefined;
  const reportProgress = () => {
    if (readProgress !== undefined) report({ kind: 'progress', snapshot: readProgress() });
  };
  const timer = setInterval(reportProgress, REPORT_EVERY_MS);
  try {
    const loaded = await unlockArchive({
      ...job,
      aesKey: await key.promise,
      engine,
      signal: cancel.signal,
      onLoading: () => {
        report({ kind: 'loading' });
      },
      onProgress: (read) => {
        readProgress = read;
        reportProgress();
      },
    });
    reportProgress();
    report({ kind: 'loaded', loaded });
  } catch (error) {
    report({ kind: 'failed', ...describeFailure(error) });
  } finally {
    clearInterval(timer);
    await engine.close();
    port.close();
  }
}

function stepBack(): void {
  try {
    setPriority(0, NICENESS);
  } catch {
    // A system that forbids even that is one on which all are equal.
  }
}

function toLoaderError({ code, message }: Extract<ThreadOrder, { kind: 'cancel' }>): LoaderError {
  return new LoaderError(code, message);
}

/** Errors lose their class and their cause on the way to the other thread; what is logged of them goes as text. */
function describeFailure(
  error: unknown,
): Pick<Extract<ThreadMessage, { kind: 'failed' }>, 'code' | 'message' | 'reason'> {
  const { code, message, cause, stack } = asLoaderError(error);
  return { code, message, reason: cause === undefined ? String(stack) : String(toError(cause).stack) };
}

if (parentPort !== null) await main(parentPort, workerData as UnlockJob);
