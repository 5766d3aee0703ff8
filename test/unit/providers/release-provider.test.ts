import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LoaderError } from '../../../src/errors.ts';
import { createReleaseProvider } from '../../../src/providers/release-provider.ts';
import type { UnlockStatus } from '../../../src/unlock/unlock-service.ts';
import { RecordedContext } from '../../support/task-context.ts';

/** Unlocks that become ready when they are started. */
function makeUnlocks(started: string[]) {
  return {
    startRelease: () => {
      started.push('release');
      return Promise.resolve('authenticating' as const);
    },
    cancel: () => Promise.resolve('error' as const),
    async *watch(): AsyncGenerator<UnlockStatus, void, undefined> {
      await Promise.resolve();
      yield { state: 'ready', error: null, code: null, progress: null };
    },
  };
}

describe('release', () => {
  it('unlocks without parameters, and may be repeated and scheduled', async () => {
    const started: string[] = [];
    const upstream = { isAuthenticated: true, authenticated: () => assert.fail(), session: () => Promise.resolve() };
    const provider = createReleaseProvider({ upstream, unlocks: makeUnlocks(started) });
    const result = await new RecordedContext().run(provider, {});
    assert.deepEqual([result, started], [{ state: 'ready', images: null, bytes: null }, ['release']]);
    assert.deepEqual([provider.isRepeatable, provider.prepare({}).hasSecrets], [true, false]);
  });

  it('fails at once when no user is logged in, but waits for the first login when it runs unattended', async () => {
    const started: string[] = [];
    const login = Promise.withResolvers<undefined>();
    let session: () => Promise<void> = () => Promise.reject(new LoaderError('not_authenticated', 'No.'));
    const upstream = { isAuthenticated: false, authenticated: () => login.promise, session: () => session() };
    const provider = createReleaseProvider({ upstream, unlocks: makeUnlocks(started) });
    await assert.rejects(new RecordedContext().run(provider, {}), { code: 'not_authenticated' });
    const context = new RecordedContext({ isUnattended: true });
    const waiting = context.run(provider, {});
    assert.match(context.lines[0] ?? '', /^Waiting for the first login: POST \/login, or set LOGIN_EMAIL/);
    assert.deepEqual(started, []);
    session = () => Promise.resolve();
    login.resolve(undefined);
    await waiting;
    assert.deepEqual(started, ['release']);
  });
});
