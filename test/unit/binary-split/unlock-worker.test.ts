import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { UnlockWorker, type UnlockJob } from '../../../src/binary-split/unlock-worker.ts';

function createWorker(job: Partial<UnlockJob> = {}): UnlockWorker {
  return new UnlockWorker({
    path: '/nowhere/images.enc',
    dockerHost: { kind: 'unix', socketPath: '/nowhere/docker.sock' },
    engineTimeoutMs: 1000,
    parallelism: 1,
    stallTimeoutMs: 1000,
    ...job,
  });
}

async function unlock(worker: UnlockWorker, signal: AbortSignal = NEVER): Promise<void> {
  await Array.fromAsync(worker.unlock(Buffer.alloc(32), signal));
}

describe('the worker of an unlock', () => {
  it('hands the failure of its thread over with its code', async () => {
    await using worker = createWorker();
    await assert.rejects(unlock(worker), { name: 'LoaderError', code: 'archive_not_found' });
  });

  it('fails when its thread ended before it was given anything to do', async () => {
    const worker = createWorker();
    await worker.terminate();
    await assert.rejects(unlock(worker), /ended early/);
  });

  it('fails with the reason when it is cancelled before it began', async () => {
    await using worker = createWorker();
    const reason = new Error('cancelled');
    await assert.rejects(unlock(worker, AbortSignal.abort(reason)), reason);
  });

  it('fails when it is terminated while it works', async () => {
    const worker = createWorker({ path: '/dev/zero' });
    const unlocking = unlock(worker);
    await worker.terminate();
    await assert.rejects(unlocking, /ended early/);
  });
});
