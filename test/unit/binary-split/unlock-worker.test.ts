import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { UnlockWorker } from '../../../src/binary-split/unlock-worker.ts';

const LISTENER = { onLoading: () => undefined, onProgress: () => undefined };

function createWorker(): UnlockWorker {
  return new UnlockWorker({
    path: '/nowhere/images.enc',
    dockerHost: { kind: 'unix', socketPath: '/nowhere/docker.sock' },
    engineTimeoutMs: 1000,
    parallelism: 1,
    stallTimeoutMs: 1000,
  });
}

describe('the worker of an unlock', () => {
  it('hands the failure of its thread over with its code', async () => {
    const load = createWorker().load(Buffer.alloc(32), LISTENER, new AbortController().signal);
    await assert.rejects(load, { name: 'LoaderError', code: 'archive_not_found' });
  });

  it('fails when its thread ended before it was given anything to do', async () => {
    const worker = createWorker();
    await worker.terminate();
    await assert.rejects(worker.load(Buffer.alloc(32), LISTENER, new AbortController().signal), /ended early/);
  });

  it('fails with the reason when it is cancelled before it began', async () => {
    const worker = createWorker();
    const reason = new Error('cancelled');
    await assert.rejects(worker.load(Buffer.alloc(32), LISTENER, AbortSignal.abort(reason)), reason);
    await worker.terminate();
  });
});
