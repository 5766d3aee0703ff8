import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createUnlockProvider } from '../../../src/providers/unlock-provider.ts';
import type { UnlockStatus } from '../../../src/unlock/unlock-service.ts';
import { RecordedContext } from '../../support/task-context.ts';

describe('unlock', () => {
  function statuses(...last: Pick<UnlockStatus, 'state' | 'error' | 'code'>[]): () => AsyncGenerator<UnlockStatus> {
    return async function* () {
      for (const status of last) {
        await Promise.resolve();
        yield { ...status, progress: null };
      }
    };
  }
  const begun = { state: 'authenticating', error: null, code: null } as const;
  const base = {
    start: () => Promise.resolve('authenticating' as const),
    cancel: () => Promise.resolve('error' as const),
  };

  it('goes with a run to its end, and notes its states', async () => {
    const watch = statuses(begun, { state: 'ready', error: null, code: null });
    const provider = createUnlockProvider({ ...base, watch, onRun: () => undefined });
    const context = new RecordedContext();
    const result = await context.run(provider, { email: 'a@example.com', password: 'secret' });
    assert.deepEqual(result, { state: 'ready', images: null, bytes: null });
    assert.deepEqual(context.lines.slice(-2), ['authenticating', 'ready']);
    assert.deepEqual(provider.prepare({ email: 'a@example.com', password: 'secret' }).parameters, {
      email: 'a@example.com',
    });
  });

  it('fails as the run does, and is cancelled where that was', async () => {
    for (const [code, expected] of [
      ['archive_key_wrong', 'archive_key_wrong'],
      ['unlock_cancelled', 'task_cancelled'],
    ] as const) {
      const watch = statuses(begun, { state: 'error', error: 'It ended.', code });
      const provider = createUnlockProvider({ ...base, watch, onRun: () => undefined });
      await assert.rejects(new RecordedContext().run(provider, { email: 'a', password: 'b' }), {
        code: expected,
        message: 'It ended.',
      });
    }
  });
});
